"""Lets a loaded broker die at each step of offload, manifest, trim, merge and delete.

The broker kills itself where it is told to (s3-uploader/src/fail_point.rs has the steps), once a
step, in the order below; producers live through all of it. At the end every acknowledged record
must be there, at its offset, once and in order, and what the deaths left in the bucket must go.
"""

import argparse
import os
import random
import subprocess
import time

from crash import conclude, create_topics, faults_of_end, finish, random_for, wait_for
from process import SMALL_LOG, Broker
from producers import senders
from verdict import faults_of_log, read_all

STEPS = [
    "offload.gathered", "put.written", "put.done", "offload.stored", "offload.proposed",
    "offload.applied", "snapshot.begun", "snapshot.durable", "wal.trimmed", "manifest.begun",
    "manifest.stored", "merge.begun", "merge.read", "merge.stored", "merge.proposed",
    "merge.applied", "log-start.applied", "delete.begun", "delete.done", "delete.applied",
    "sweep.listed", "sweep.done",
]
ARGUMENTS = [*SMALL_LOG, "--set", "object.delete.grace.ms=500", "--set",
             "object.sweep.interval.ms=500", "--set", "log.retention.check.interval.ms=300"]
# The second one loses its old records all the time: it makes log starts move, and is not read back.
TOPICS = {"steps": (6, {}), "short": (2, {"retention.bytes": "100000"})}
KEPT = [("steps", partition) for partition in range(6)]
SHORT = [("short", partition) for partition in range(2)]
STEP_SECONDS_MAX = 300
BUCKET_SECONDS_MAX = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--steps", nargs="*", default=STEPS)
    parser.add_argument("--no-wal-verify", action="store_true")
    return parser.parse_args()


def faults_of_bucket(binary, folder):
    """All that the manifests name must be there and whole, and in time nothing else."""
    deadline = time.monotonic() + BUCKET_SECONDS_MAX
    while True:
        command = [binary, "object", "verify", "--strict", "--object-store", f"file://{folder}"]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        if verified.returncode == 0:
            print(verified.stdout.strip())
            return []
        if time.monotonic() > deadline:
            return [f"object verify: {verified.stdout.strip()} {verified.stderr.strip()}"]
        time.sleep(1)


def run(options, directory):
    rng = random.Random(options.seed)
    broker = Broker(options.binary, directory, ARGUMENTS)
    faults = []
    try:
        broker.start()
        broker.wait_ready()
        create_topics(broker.address, TOPICS)
        kept = senders(broker.address, KEPT, rng, random_for)
        short = senders(broker.address, SHORT, rng, random_for)[:1]
        load = [*kept, *short]
        for sender in load:
            sender.start()
        broker.kill()
        for step in options.steps:
            started = time.monotonic()
            broker.start(f"{step}:{rng.randrange(1, 4)}")
            if not broker.wait_killed(STEP_SECONDS_MAX):
                faults.append(f"{step} was not passed in {STEP_SECONDS_MAX} s")
                broker.kill()
            print(f"{step:18} killed after {time.monotonic() - started:4.1f} s", flush=True)
        broker.start()
        broker.wait_ready()
        for sender in load:
            count = sender.acknowledged_count
            wait_for(f"an acknowledgement for {sender.name}",
                     lambda sender=sender, count=count: sender.acknowledged_count > count, 20, load)
        finish(load, load)
        logs = read_all(broker.address, KEPT)
        for place, log in logs.items():
            faults += faults_of_log(place, log, kept)
        print(f"deaths {broker.kills}; records acknowledged "
              f"{sum(sender.acknowledged_count for sender in kept)}, in the log "
              f"{sum(len(log) for log in logs.values())}")
        faults += faults_of_bucket(options.binary, os.path.join(directory, "data", "objects"))
        faults += faults_of_end(broker, options, directory)
        return faults
    finally:
        broker.clean_up()


if __name__ == "__main__":
    given = arguments()
    conclude("steps", len(given.steps), given, run)
