"""Tailrace and Apache Kafka 4.4 by turns: broker on the core that the device interrupts, load on another, one file system.

Kafka runs as one KRaft node, with its defaults (it acknowledges what is in the page cache) and with
`log.flush.interval.messages=1` (it acknowledges what is durable, as Tailrace does). In each round every
system starts anew, is warmed up, and is measured: latency at a fixed rate of single records
(`tailrace bench produce`), throughput and CPU with kafka-producer-perf-test and its defaults, and
kafka-e2e-latency. Told are medians over the rounds, and ratios of medians.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile

from load import QUANTILES, JavaTools, produce
from report import write_html
from result import write_json
from systems import LOAD_CORE, SYSTEMS, System

PRODUCERS = [1, 4]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--classpath", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of latency")
    parser.add_argument("--rate", type=int, default=1000, help="records a second, one a request")
    parser.add_argument("--records", type=int, default=2_000_000,
                        help="of each run of kafka-producer-perf-test; with a quarter of that four JVMs mostly start up")
    parser.add_argument("--messages", type=int, default=2000, help="of kafka-e2e-latency")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--json", required=True)
    parser.add_argument("--html", required=True)
    return parser.parse_args()


class Measured:
    """One system in one round."""

    def __init__(self, options, java, system, directory):
        self._options, self._java, self._system, self._directory = options, java, system, directory

    def all(self):
        words = ["--record-size", "1024", "--cores", str(LOAD_CORE)]
        # The JVM compiles what is hot; what a topic's first record makes is made.
        self._latency([*words, "--rate", str(self._options.rate), "--seconds", "10", "--warmup", "0"])
        latency = self._latency([*words, "--rate", str(self._options.rate), "--seconds", str(self._options.seconds)])
        found = {"latency": latency, "throughput": [self._throughput(producers) for producers in PRODUCERS]}
        found["end_to_end"] = self._java.end_to_end_latency(self._system.address, "e2e", self._options.messages)
        return found

    def _latency(self, words):
        system = self._system
        before = system.cpu_seconds()
        found = produce(self._options.binary, self._directory, system.address, "latency", *words)
        found["broker_cpu_seconds"] = system.cpu_seconds() - before
        return found

    def _throughput(self, producers):
        system = self._system
        before = system.cpu_seconds()
        found = self._java.producer_perf_test(system.address, f"throughput-{producers}", producers,
                                              self._options.records)
        used = system.cpu_seconds() - before
        return found | {"broker_cpu_seconds": used, "records_per_broker_cpu_second": found["records"] / used}


def one_round(options, java, name, settings):
    directory = tempfile.mkdtemp(prefix="bench-kafka.", dir=os.environ["BENCH_DIR"])
    system = System(options.binary, directory, name)
    try:
        system.start()
        settings[name] = {"command": system.command(), **system.settings()}
        return Measured(options, java, system, directory).all()
    finally:
        system.clean_up()
        shutil.rmtree(directory)


def medians(rounds):
    """Of one system."""
    latency = {quantile: statistics.median(each["latency"]["latency_us"][quantile] for each in rounds)
               for quantile in [*QUANTILES, "p99_99"]}
    throughput = {}
    for at, producers in enumerate(PRODUCERS):
        of = [each["throughput"][at] for each in rounds]
        for figure in ("megabytes_per_second", "records_per_broker_cpu_second", "p99_ms"):
            throughput[f"{figure}_{producers}"] = statistics.median(each[figure] for each in of)
    end_to_end = {quantile: statistics.median(each["end_to_end"][quantile] for each in rounds)
                  for quantile in ("p50_ms", "p99_ms", "p99_9_ms")}
    return {"latency_us": latency, "throughput": throughput, "end_to_end": end_to_end}


def ratios(found):
    """What Kafka takes over what Tailrace takes, so more is better for Tailrace; and throughput the other way."""
    own, told = found["tailrace"], {}
    for peer in (name for name in found if name != "tailrace"):
        told[peer] = {quantile: found[peer]["latency_us"][quantile] / own["latency_us"][quantile]
                      for quantile in QUANTILES}
        told[peer] |= {figure: own["throughput"][figure] / found[peer]["throughput"][figure]
                       for figure in own["throughput"] if not figure.startswith("p99")}
    return told


def show(found, told):
    for name, figures in found.items():
        latency, end_to_end = figures["latency_us"], figures["end_to_end"]
        print(f"{name}\n  produce, us: " + ", ".join(f"{each} {latency[each]:.0f}" for each in latency))
        for producers in PRODUCERS:
            of = figures["throughput"]
            print(f"  {producers} producers: {of[f'megabytes_per_second_{producers}']:.1f} MB/s, "
                  f"{of[f'records_per_broker_cpu_second_{producers}']:.0f} records a CPU second of the broker, "
                  f"p99 {of[f'p99_ms_{producers}']:.0f} ms")
        print("  end to end, ms: " + ", ".join(f"{each[:-3]} {end_to_end[each]:.0f}" for each in end_to_end))
    for peer, figures in told.items():
        print(f"over {peer}: " + ", ".join(f"{each} {value:.2f}" for each, value in figures.items()))


def main():
    options = arguments()
    java, settings, rounds = JavaTools(options.classpath), {}, {name: [] for name in options.systems.split(",")}
    names = list(rounds)
    for number in range(options.rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            rounds[name].append(one_round(options, java, name, settings))
            of = rounds[name][-1]
            print(f"round {number + 1}, {name}: p99 {of['latency']['latency_us']['p99']:.0f} us, " + ", ".join(
                f"{each['megabytes_per_second']:.1f} MB/s" for each in of["throughput"]), flush=True)
    for name, told in settings.items():
        print(f"settings of {name}:")
        for key, value in told.items():
            print(f"  {key} = {value}")
    found = {name: medians(of) for name, of in rounds.items()}
    told = ratios(found) if "tailrace" in found else {}
    show(found, told)
    result = {"systems": settings, "medians": found, "ratio": told, "rounds": rounds}
    write_json(options, "kafka", result)
    write_html(options, result)


if __name__ == "__main__":
    sys.exit(main())
