"""How much of the device's bandwidth large batches get: records of 128 KiB that are appended to a WAL by itself, and
`acks=all` produce of batches of 128 KiB through the broker, each as fast as it goes, over `fio` on the WAL's file: sequential
O_DIRECT writes by io_uring, durable as those of the WAL are.

Through the broker one core does everything, sockets and validation too. Only full objects are offloaded meanwhile, a few. Each
round has a new log; the broker writes less than it holds, the WAL by itself goes round.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile

from load import bench, fio, produce
from result import write_json
from systems import BROKER_CORE, System

TOPIC = "bandwidth"
BATCH_RECORDS = 128
# More than one core takes; what is asked for in all fits the log.
RATE = 2_500_000
# Block size, and how many at a time. A frame of the WAL has half a MiB, and four are in flight.
FIO = [("256k", 1), ("256k", 4), ("512k", 4), ("1m", 4)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--wal-size", default="6GiB")
    parser.add_argument("--json")
    return parser.parse_args()


def of_wal(options, directory, path):
    """MB/s of records."""
    words = ["--path", path, "--seconds", str(2 * options.seconds)]
    return bench(options.binary, directory, "wal", *words, core=BROKER_CORE)["megabytes_per_second"]


def of_broker(options, directory):
    """MB/s of record batches."""
    system = System(options.binary, directory, "tailrace",
                    ["--wal-size", options.wal_size, "--set", "offload.age.ms=3600000"])
    try:
        system.start()
        words = ["--record-size", "1024", "--batch-records", str(BATCH_RECORDS), "--rate", str(RATE), "--connections",
                 str(options.connections), "--in-flight", "8", "--warmup", "0.3", "--seconds", str(options.seconds)]
        found = produce(options.binary, directory, system.address, TOPIC, *words)
        system.kill()
        return found["megabytes_per_second"]
    finally:
        system.clean_up()


def of_fio(path, block, depth):
    """MB/s, on the log that was left."""
    words = ["--sync=dsync", f"--bs={block}", f"--iodepth={depth}", "--size=1g", "--overwrite=1"]
    return fio("write", path, *words)["bw_bytes"] / 1e6


def main():
    options = arguments()
    rounds = []
    for number in range(options.rounds):
        directory = tempfile.mkdtemp(prefix="bench-bandwidth.", dir=os.environ["BENCH_DIR"])
        try:
            path = os.path.join(directory, "wal")
            found = {"broker": of_broker(options, directory), "wal": of_wal(options, directory, path)}
            bare = {f"{block}, {depth} at a time": of_fio(path, block, depth) for block, depth in FIO}
        finally:
            shutil.rmtree(directory)
        rounds.append(found | {"fio": bare})
        print(f"round {number + 1}: WAL {found['wal']:.0f} MB/s, broker {found['broker']:.0f} MB/s; fio "
              + ", ".join(f"{value:.0f} ({name})" for name, value in bare.items()), flush=True)
    share = {what: {name: statistics.median(each[what] / each["fio"][name] for each in rounds) for name in rounds[0]["fio"]}
             for what in ("wal", "broker")}
    for what, over in share.items():
        print(f"{what} over fio: " + ", ".join(f"{value:.2f} ({name})" for name, value in over.items()))
    write_json(options, "bandwidth", {"share": share, "rounds": rounds})


if __name__ == "__main__":
    sys.exit(main())
