"""How long a broker takes to serve again after kill -9 with a full log of 1 GiB, over a bare sequential
O_DIRECT read (fio, io_uring) of the same bytes, by turns.

The log is filled while nothing can be offloaded: a file is in the place of the objects' folder.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from load import fio
from result import write_json
from systems import LOAD_CORE, System, on_core


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record-size", type=int, default=1024)
    parser.add_argument("--batch-records", type=int, default=16, help="a request has so many")
    parser.add_argument("--json")
    return parser.parse_args()


def fill(options, system):
    """Until the log takes no more records; errors say so."""
    full = 0
    while True:
        with on_core(LOAD_CORE):
            subprocess.run([options.binary, "bench", "produce", "--bootstrap", system.address, "--rate", "60000",
                            "--record-size", str(options.record_size), "--batch-records", str(options.batch_records),
                            "--connections", "4", "--seconds", "3", "--warmup", "0"],
                           check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        used = system.metric("tailrace_wal_used_bytes")
        if used == full:
            return used
        full = used


def bare_read(path, size):
    """Seconds. Four reads of 1 MiB at a time, as the broker does: of nine shapes none was clearly faster."""
    return fio("read", path, "--bs=1m", "--iodepth=4", f"--size={int(size)}")["runtime"] / 1000


def recover(system):
    """Seconds from the start of the process until it serves."""
    began = time.monotonic()
    system.start()
    took = time.monotonic() - began
    system.kill()
    return took


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="bench-recovery.", dir=os.environ["BENCH_DIR"])
    system = System(options.binary, directory, "tailrace", ["--wal-size", "1GiB"])
    try:
        system.start()
        objects = os.path.join(directory, "data", "objects")
        os.rename(objects, objects + ".away")
        open(objects, "x", encoding="utf-8").close()
        used = fill(options, system)
        system.kill()
        os.remove(objects)
        os.rename(objects + ".away", objects)
        wal = os.path.join(directory, "data", "wal")
        rounds = []
        for number in range(options.rounds):
            turns = [("bare", lambda: bare_read(wal, used)), ("recovery", lambda: recover(system))]
            rounds.append({name: turn() for name, turn in (turns if number % 2 else reversed(turns))})
            print(f"round {number + 1}: read in {rounds[-1]['bare']:.2f} s, serves after {rounds[-1]['recovery']:.2f} s",
                  flush=True)
    finally:
        system.clean_up()
        shutil.rmtree(directory)
    share = statistics.median(each["bare"] / each["recovery"] for each in rounds)
    print(f"{used / 2**20:.0f} MiB of log: speed of recovery over that of a bare read: {share:.2f}")
    write_json(options, "recovery", {"log_bytes": used, "share": {"speed": share}, "rounds": rounds})


if __name__ == "__main__":
    sys.exit(main())
