"""What producers notice of a store that is away: p99 of produce while it is, over p99 while it is not.

Open-loop load (`tailrace bench produce`), in rounds of three: the store is there, the store is away,
the store is back and is caught up with. The ratio of a round is within that round; told is the median.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from outage import Proxy, Run  # sets the path to the crash run's modules

from process import Broker

NAMES = ["p50", "p90", "p99", "p99_9", "max"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--fault", default="refuse", help="what is done to the store, see proxy.py")
    parser.add_argument("--wal-size", default="1GiB")
    parser.add_argument("--set", action="append", default=[], help="a setting of the broker")
    parser.add_argument("--json", help="also write all figures to this file")
    return parser.parse_args()


def produce(options, broker, directory):
    path = os.path.join(directory, "produce.json")
    subprocess.run([options.binary, "bench", "produce", "--bootstrap", broker.address, "--rate",
                    str(options.rate), "--seconds", str(options.seconds), "--warmup", "2", "--cores", "1",
                    "--json", path], check=True, stdout=subprocess.DEVNULL)
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    assert report["errors"] == 0 and report["unanswered"] == 0, report["first_error"]
    return report["latency_us"]


class Bench(Run):
    def __init__(self, options, directory):
        settings = [word for setting in options.set for word in ("--set", setting)]
        self.broker = Broker(options.binary, directory, [
            "--cores", "1", "--wal-size", options.wal_size, "--object-store", options.store, *settings])
        self.proxy = Proxy(options.control)
        self.options, self.directory = options, directory
        self.senders, self.readers = [], []

    def row(self, name, latency):
        print(f"  {name:8}" + "".join(f"{latency[each]:11.0f}" for each in NAMES), flush=True)

    def round(self, number):
        print(f"round {number}, us" + "".join(f"{name:>11}" for name in NAMES), flush=True)
        figures = {}
        self.wait("all is offloaded", self.is_caught_up)
        for name, fault in [("there", "none"), ("away", self.options.fault), ("back", "none")]:
            self.proxy.tell(f"fault {fault}")
            figures[name] = produce(self.options, self.broker, self.directory)
            self.row(name, figures[name])
            if name == "away":
                now = self.metrics()
                free, size = now["tailrace_wal_reserve_free_bytes"], now["tailrace_wal_reserve_bytes"]
                assert free > 0, "the reserve was used up: measure for a shorter time"
                print(f"  lag {now['tailrace_offload_lag_bytes'] / 1e6:.1f} MB, of the reserve "
                      f"{free / size:.0%} left", flush=True)
        return figures

    def run(self):
        try:
            self.broker.start()
            self.broker.wait_ready()
            produce(self.options, self.broker, self.directory)
            rounds = [self.round(number + 1) for number in range(self.options.rounds)]
            self.proxy.tell("fault none")
            self.wait("all is offloaded", self.is_caught_up)
            self.broker.stop()
            return rounds
        finally:
            self.broker.clean_up()


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="outage-bench.", dir=os.environ.get("OUTAGE_DIR"))
    try:
        rounds = Bench(options, directory).run()
    finally:
        shutil.rmtree(directory)
    ratios = {name: statistics.median(each["away"][name] / each["there"][name] for each in rounds)
              for name in NAMES}
    print(f"{options.rate} records/s of 1 KiB, acks=all; {options.rounds} rounds of 3 x {options.seconds} s; "
          f"store: {options.fault}")
    print("away / there, median of rounds: "
          + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "outage", "settings": vars(options), "rounds": rounds, "ratio": ratios},
                      file, indent=1)
    sys.exit(0)


main()
