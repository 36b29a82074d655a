"""Latency while the log goes round and round, is trimmed behind objects, and objects are deleted by retention, over
that of a broker that does none of it; by turns, at the same rate.

The one that recycles has a log of 64 MiB, which it fills again and again, and keeps 32 MiB of records.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../cluster"))

from load import in_words, medians, produce, ratios
from result import write_json
from stages import APPEND, PRODUCE, WRITE, Scrape
from systems import System

TOPIC = "recycling"
# A write that takes long is in the p99.9 of the device and in the p99 of all that come meanwhile.
STAGES = {"request p99": (PRODUCE, 0.99), "its write with the queue p99": (APPEND, 0.99),
          "device p99": (WRITE, 0.99), "p99.9": (WRITE, 0.999), "longest": (WRITE, 1)}
FLAGS = {
    "quiet": ["--set", "offload.age.ms=3600000"],
    "recycling": ["--wal-size", "64MiB", "--set", "offload.age.ms=2000", "--set", "log.retention.bytes=33554432",
                  "--set", "log.retention.check.interval.ms=1000", "--set", "object.delete.grace.ms=1000"],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--objects", help="a folder, on another device; by default objects are on that of the log")
    parser.add_argument("--json")
    return parser.parse_args()


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="bench-recycling.", dir=os.environ["BENCH_DIR"])
    objects = tempfile.mkdtemp(prefix="bench-recycling.", dir=options.objects or directory)
    systems, rounds, stages = {}, {name: [] for name in FLAGS}, {name: [] for name in FLAGS}
    try:
        for name, flags in FLAGS.items():
            home = os.path.join(directory, name)
            os.mkdir(home)
            store = f"file://{os.path.join(objects, name)}"
            systems[name] = System(options.binary, home, "tailrace", [*flags, "--object-store", store])
            systems[name].start()
        words = ["--rate", str(options.rate), "--seconds", str(options.seconds)]
        for number in range(options.rounds):
            for name in list(FLAGS)[::1 if number % 2 else -1]:
                before = Scrape.of(systems[name].admin)
                found = produce(options.binary, directory, systems[name].address, TOPIC, *words)
                past = Scrape.of(systems[name].admin) - before
                rounds[name].append(found["latency_us"])
                stages[name].append({stage: past.quantile_us(*of) for stage, of in STAGES.items()})
        system = systems["recycling"]
        laps = system.metric("tailrace_wal_written_bytes_total") / system.metric("tailrace_wal_size_bytes")
        deleted = system.metric("tailrace_object_deleted_total")
    finally:
        for system in systems.values():
            system.clean_up()
        shutil.rmtree(objects)
        shutil.rmtree(directory)
    latency = {name: medians(of) for name, of in rounds.items()}
    for name, found in latency.items():
        print(f"{name}, us: {in_words(found)}; by the broker: " + ", ".join(
            f"{stage} {statistics.median(each[stage] for each in stages[name]):.0f}" for stage in STAGES))
    ratio = ratios(latency["recycling"], latency["quiet"])
    print(f"{laps:.1f} times round the log, {deleted:.0f} objects deleted; ratio: {in_words(ratio, 2)}")
    write_json(options, "recycling", {"latency": latency, "ratio": ratio, "laps": laps, "deleted": deleted,
                                      "rounds": rounds, "stages_us": stages})


if __name__ == "__main__":
    sys.exit(main())
