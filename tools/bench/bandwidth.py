"""How much of the device's bandwidth large batches get: `acks=all` produce of batches of 128 KiB, as fast as it goes, over
`fio` on the same file: sequential O_DIRECT writes by io_uring, each durable as the broker's are.

Only full objects are offloaded meanwhile, a few. Each round has a new log and writes less than it holds.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile

from load import fio, produce
from result import write_json
from systems import System

TOPIC = "bandwidth"
BATCH_RECORDS = 128
# More than one core takes; what is asked for in all fits the log.
RATE = 1_400_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--wal-size", default="4GiB")
    parser.add_argument("--json")
    return parser.parse_args()


def of_broker(options, directory):
    """MB/s of record batches."""
    system = System(options.binary, directory, "tailrace",
                    ["--wal-size", options.wal_size, "--set", "offload.age.ms=3600000"])
    try:
        system.start()
        words = ["--record-size", "1024", "--batch-records", str(BATCH_RECORDS), "--rate", str(RATE), "--connections",
                 str(options.connections), "--in-flight", "8", "--warmup", "0.5", "--seconds", str(options.seconds)]
        found = produce(options.binary, directory, system.address, TOPIC, *words)
        system.kill()
        return found["megabytes_per_second"]
    finally:
        system.clean_up()


def of_fio(directory, block, depth):
    """MB/s, on the log that the broker has left."""
    words = ["--sync=dsync", f"--bs={block}", f"--iodepth={depth}", "--size=1g", "--overwrite=1"]
    return fio("write", f"{directory}/data/wal", *words)["bw_bytes"] / 1e6


def main():
    options = arguments()
    rounds = []
    for number in range(options.rounds):
        directory = tempfile.mkdtemp(prefix="bench-bandwidth.", dir=os.environ["BENCH_DIR"])
        try:
            broker = of_broker(options, directory)
            # Frames have what is pending, some 256 KiB here, and four are in flight.
            bare = {f"{block}, {depth} at a time": of_fio(directory, block, depth)
                   for block, depth in (("256k", 1), ("256k", 4), ("1m", 4))}
        finally:
            shutil.rmtree(directory)
        rounds.append({"broker": broker, "fio": bare})
        print(f"round {number + 1}: {broker:.0f} MB/s; fio " + ", ".join(f"{value:.0f} ({name})" for name, value in bare.items()),
              flush=True)
    ratio = {name: statistics.median(each["broker"] / each["fio"][name] for each in rounds) for name in rounds[0]["fio"]}
    for name, value in ratio.items():
        print(f"over fio with {name}: {value:.2f}")
    write_json(options, "bandwidth", {"ratio": ratio, "rounds": rounds})


if __name__ == "__main__":
    sys.exit(main())
