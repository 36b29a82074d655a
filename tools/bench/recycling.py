"""Latency while the log goes round and round, is trimmed behind objects, and objects are deleted by retention, over
that of a broker that does none of it; by turns, at the same rate.

The one that recycles has a log of 64 MiB, which it fills again and again, and keeps 32 MiB of records.
"""

import argparse
import os
import shutil
import sys
import tempfile

from load import in_words, medians, produce, ratios
from result import write_json
from systems import System

TOPIC = "recycling"
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
    parser.add_argument("--json")
    return parser.parse_args()


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="bench-recycling.", dir=os.environ["BENCH_DIR"])
    systems, rounds = {}, {name: [] for name in FLAGS}
    try:
        for name, flags in FLAGS.items():
            home = os.path.join(directory, name)
            os.mkdir(home)
            systems[name] = System(options.binary, home, "tailrace", flags)
            systems[name].start()
        words = ["--rate", str(options.rate), "--seconds", str(options.seconds)]
        for number in range(options.rounds):
            for name in list(FLAGS)[::1 if number % 2 else -1]:
                found = produce(options.binary, directory, systems[name].address, TOPIC, *words)
                rounds[name].append(found["latency_us"])
        system = systems["recycling"]
        laps = system.metric("tailrace_wal_written_bytes_total") / system.metric("tailrace_wal_size_bytes")
        deleted = system.metric("tailrace_object_deleted_total")
    finally:
        for system in systems.values():
            system.clean_up()
        shutil.rmtree(directory)
    latency = {name: medians(of) for name, of in rounds.items()}
    for name, found in latency.items():
        print(f"{name}, us: {in_words(found)}")
    ratio = ratios(latency["recycling"], latency["quiet"])
    print(f"{laps:.1f} times round the log, {deleted:.0f} objects deleted; ratio: {in_words(ratio, 2)}")
    write_json(options, "recycling", {"latency": latency, "ratio": ratio, "laps": laps, "deleted": deleted,
                                      "rounds": rounds})


if __name__ == "__main__":
    sys.exit(main())
