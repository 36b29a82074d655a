"""What partitions cost: latency at one total rate, written evenly to 1, 1,000 and 10,000 of them, by turns;
and the memory of a broker that has them and nothing to do.

The brokers share a core, so all but the one whose turn it is are stopped: what a load leaves to do, the next
object above all, is the same broker's. A turn is longer than it takes to become due (`offload.age.ms`).
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time

from confluent_kafka.admin import AdminClient, NewTopic

from load import in_words, medians, produce, ratios
from result import write_json
from systems import System

TOPIC = "partitions"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--json")
    return parser.parse_args()


def resting(system, seconds=15):
    """Resident bytes once all that a change left to do is done."""
    time.sleep(seconds)
    return system.resident_bytes()


def start(options, directory, count):
    home = os.path.join(directory, str(count))
    os.mkdir(home)
    system = System(options.binary, home, "tailrace")
    system.start()
    empty = resting(system)
    admin = AdminClient({"bootstrap.servers": system.address, "log_level": 0})
    admin.create_topics([NewTopic(TOPIC, count, 1)], request_timeout=120)[TOPIC].result(120)
    created = resting(system)
    words = ["--partitions", str(count), "--rate", "5000", "--seconds", str(max(2.0, count / 5000)), "--warmup", "0"]
    produce(options.binary, home, system.address, TOPIC, *words)
    written = resting(system)
    system.signal(signal.SIGSTOP)
    return system, {"empty_bytes": empty, "created_bytes": created, "written_bytes": written}


def measure(options, directory, system, count):
    words = ["--partitions", str(count), "--rate", str(options.rate), "--seconds", str(options.seconds)]
    system.signal(signal.SIGCONT)
    try:
        return produce(options.binary, directory, system.address, TOPIC, *words)["latency_us"]
    finally:
        system.signal(signal.SIGSTOP)


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="bench-partitions.", dir=os.environ["BENCH_DIR"])
    systems, memory = {}, {}
    try:
        for count in options.partitions:
            systems[count], memory[count] = start(options, directory, count)
        rounds = {count: [] for count in options.partitions}
        for number in range(options.rounds):
            turn = number % len(options.partitions)
            for count in options.partitions[turn:] + options.partitions[:turn]:
                rounds[count].append(measure(options, directory, systems[count], count))
    finally:
        for system in systems.values():
            system.clean_up()
        shutil.rmtree(directory)
    latency = {count: medians(of) for count, of in rounds.items()}
    fewest, ratio = options.partitions[0], {}
    for count in options.partitions:
        used = memory[count]
        print(f"{count} partitions, us: {in_words(latency[count])}")
        if count != fewest:
            ratio[str(count)] = ratios(latency[count], latency[fewest])
            more = {name: (used[name] - used["empty_bytes"] - memory[fewest][name] + memory[fewest]["empty_bytes"])
                    / (count - fewest) for name in ("created_bytes", "written_bytes")}
            print(f"  over {fewest}: {in_words(ratio[str(count)], 2)}")
            print(f"  resident bytes for each: {more['created_bytes']:.0f} created, {more['written_bytes']:.0f} once "
                  f"written")
            used["bytes_for_each"] = more
    write_json(options, "partitions", {"latency": latency, "ratio": ratio, "memory": memory, "rounds": rounds})


if __name__ == "__main__":
    sys.exit(main())
