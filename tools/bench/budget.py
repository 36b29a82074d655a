"""Where the time of a produce request goes, stage by stage, by the broker's own histograms: `acks=all`, one record
of 1 KiB a request, at a steady rate; broker and load on a core each; the load spins.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, "../cluster"))

from load import produce
from result import write_json
from stages import Scrape, stages
from systems import System

TOPIC = "budget"
PASS = "tailrace_core_pass_latency_seconds"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rates", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--json")
    return parser.parse_args()


def measure(options, directory, system, rate):
    words = ["--rate", str(rate), "--seconds", str(options.seconds), "--warmup", "0"]
    before, used = Scrape.of(system.admin), system.cpu_seconds()
    found = produce(options.binary, directory, system.address, TOPIC, *words)
    past = Scrape.of(system.admin) - before
    told = stages(found["mean_us"], past)
    told["(passes of the core)"] = past.mean_us(PASS) * past.count(PASS) / found["count"]
    told["(processor, all threads)"] = 1e6 * (system.cpu_seconds() - used) / found["count"]
    return told


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="bench-budget.", dir=os.environ["BENCH_DIR"])
    system = System(options.binary, directory, "tailrace")
    rounds = {rate: [] for rate in options.rates}
    try:
        system.start()
        for _ in range(options.rounds):
            for rate in options.rates:
                rounds[rate].append(measure(options, directory, system, rate))
    finally:
        system.clean_up()
        shutil.rmtree(directory)
    medians = {rate: {stage: statistics.median(each[stage] for each in of) for stage in of[0]}
               for rate, of in rounds.items()}
    print(f"{'us for each request (medians of rounds of means)':50}" + "".join(f"{rate:>10}/s" for rate in medians))
    for stage in medians[options.rates[0]]:
        print(f"{stage:50}" + "".join(f"{of[stage]:12.1f}" for of in medians.values()))
    write_json(options, "budget", {"latency_us": medians, "rounds": rounds})


if __name__ == "__main__":
    sys.exit(main())
