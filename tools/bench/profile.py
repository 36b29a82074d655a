"""Where the processor's time goes on the produce path, and what happens when: flame graphs of the shard's thread and
timelines of its io_uring and scheduler events, at 1,000 records a second and saturated.

Needs perf and its tracepoints (root). Broker and load on a core each.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from flame import folded, svg
from systems import LOAD_CORE, System, on_core

LOADS = {
    "1000": ["--rate", "1000"],
    "saturated": ["--rate", "200000", "--connections", "8", "--in-flight", "16"],
}
EVENTS = "io_uring:io_uring_submit_req,io_uring:io_uring_complete,sched:sched_switch"
TIMELINE = re.compile(r"\s([\d.]+): +(\S+?): (.*)$")
LINES_MAX = 120


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out", required=True, help="a folder")
    return parser.parse_args()


def shard_thread(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
            if file.read().strip() == "shard-0":
                return task
    raise LookupError("no thread is shard 0's")


def perf(*words):
    return subprocess.run(["perf", *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def profile(options, directory, system, name):
    thread, path = shard_thread(system.pid), os.path.join(directory, "perf.data")
    words = [options.binary, "bench", "produce", "--bootstrap", system.address, "--topic", f"profile-{name}",
             "--seconds", str(2 * options.seconds + 6), "--warmup", "0", *LOADS[name]]
    with on_core(LOAD_CORE):
        load = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    time.sleep(3)
    perf("record", "-F", "999", "--call-graph", "dwarf,16384", "-t", thread, "-o", path, "sleep", str(options.seconds))
    stacks = folded(perf("script", "--no-inline", "-F", "comm,tid,time,ip,sym,dso", "-i", path))
    with open(os.path.join(options.out, f"produce-{name}.svg"), "w", encoding="utf-8") as file:
        file.write(svg(stacks, f"shard 0, produce at {' '.join(LOADS[name])}"))
    perf("record", "-e", EVENTS, "-t", thread, "-o", path, "sleep", "0.2")
    lines = [found for line in perf("script", "-i", path).splitlines() if (found := TIMELINE.search(line))]
    with open(os.path.join(options.out, f"produce-{name}.timeline.txt"), "w", encoding="utf-8") as file:
        file.write(timeline(lines[len(lines) // 2:][:LINES_MAX]))
    load.wait()


def timeline(lines):
    """Microseconds since the first event and since the one before."""
    first = before = float(lines[0][1])
    told = ["      us   since  event\n"]
    for found in lines:
        now = float(found[1])
        told.append(f"{1e6 * (now - first):8.0f} {1e6 * (now - before):7.0f}  {found[2].split(':')[-1]}: {shorten(found[3])}\n")
        before = now
    return "".join(told)


def shorten(text):
    text = re.sub(r"(ring|req|user_data) (0x)?[0-9a-f]+,? ?", "", text)
    return text[:110]


def main():
    options = arguments()
    os.makedirs(options.out, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="bench-profile.", dir=os.environ["BENCH_DIR"])
    system = System(options.binary, directory, "tailrace")
    try:
        system.start()
        for name in LOADS:
            profile(options, directory, system, name)
    finally:
        system.clean_up()
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
