"""What a benchmark writes with --json, with the machine that it ran on."""

import json
import os
import subprocess

from systems import BROKER_CORE, LOAD_CORE


def host(binary):
    program = os.path.join(os.path.dirname(binary), "perf")
    return json.loads(subprocess.run([program, "host"], check=True, capture_output=True, text=True).stdout)


def write_json(options, kind, found):
    settings = {key: value for key, value in vars(options).items() if key != "classpath"}
    settings |= {"broker_core": BROKER_CORE, "load_core": LOAD_CORE}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": kind, "settings": settings, "host": host(options.binary), **found}, file, indent=1)
