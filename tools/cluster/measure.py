"""Latencies as `tailrace bench produce` sees them."""

import json
import os
import subprocess

QUANTILES = ["p50", "p90", "p99", "p99_9"]


def produce(options, directory, address, topic):
    """In microseconds, by quantile; at a fixed rate, from when each request was due."""
    path = os.path.join(directory, "produce.json")
    subprocess.run([options.binary, "bench", "produce", "--bootstrap", address, "--topic", topic, "--rate",
                    str(options.rate), "--seconds", str(options.seconds), "--warmup", "2", "--cores", "1",
                    "--sleep", "--json", path], check=True, stdout=subprocess.DEVNULL)
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    assert report["errors"] == 0, report["first_error"]
    return report["latency_us"] | {"mean_us": report["mean_us"]}
