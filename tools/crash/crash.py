"""Kills a loaded broker at random moments and checks the clients' own histories.

Producers and consumer groups live through all of the broker's lives. At the end every acknowledged
record must be there, at its offset, once and in order for idempotent producers; groups must resume
where they committed. The seed decides when the broker dies, so a run can be repeated in kind, not
to the microsecond.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from groups import GroupHistory, Member
from process import Broker
from producers import senders
from verdict import faults_of_group, faults_of_log, read_all

TOPICS = {"crash-a": 4, "crash-b": 3, "crash-c": 1}
PLACES = [(topic, partition) for topic, count in TOPICS.items() for partition in range(count)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--seconds-max", type=float, default=240)
    parser.add_argument("--no-wal-verify", action="store_true")
    return parser.parse_args()


def random_for(rng):
    return random.Random(rng.getrandbits(64))


def create_topics(address, topics):
    """`topics` has the number of partitions and the settings of each."""
    admin = AdminClient({"bootstrap.servers": address})
    wanted = [NewTopic(topic, count, 1, config=config)
              for topic, (count, config) in topics.items()]
    for future in admin.create_topics(wanted, operation_timeout=30).values():
        future.result(30)


def wait_for(what, condition, seconds_max, clients):
    """Polls a condition; fails when it takes too long or when a client has given up."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds_max} s: {what}"
        errors = [each.error for each in clients if each.error]
        assert not errors, errors
        time.sleep(0.01)


def wait_progress(load, histories, clients):
    """Every sender gets something acknowledged, every group commits something."""
    for each in load:
        count = each.acknowledged_count
        wait_for(f"an acknowledgement for {each.name}",
                 lambda each=each, count=count: each.acknowledged_count > count, 20, clients)
    for each in histories:
        count = each.committed_count
        wait_for(f"a commit of {each.name}",
                 lambda each=each, count=count: each.committed_count > count, 60, clients)


def one_life(broker, rng):
    """Death at a random moment, and a new life; now and then a death before it serves."""
    time.sleep(rng.uniform(0.05, 1.2))
    broker.kill()
    broker.start()
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, 0.3))
        broker.kill()
        broker.start()
    broker.wait_ready()


def run(options, directory):
    rng = random.Random(options.seed)
    broker = Broker(options.binary, directory)
    started = time.monotonic()
    try:
        broker.start()
        broker.wait_ready()
        create_topics(broker.address, {name: (count, {}) for name, count in TOPICS.items()})
        load = senders(broker.address, PLACES, rng, random_for)
        histories = [GroupHistory("steady"), GroupHistory("moving")]
        topics = list(TOPICS)
        members = [Member(histories[0], broker.address, topics, random_for(rng), 10_000),
                   Member(histories[1], broker.address, topics, random_for(rng), 12),
                   Member(histories[1], broker.address, topics, random_for(rng), 8)]
        clients = [*load, *members]
        for client in clients:
            client.start()
        while broker.kills < options.kills:
            # Groups need seconds to form again, so only some lives wait for them.
            wait_progress(load, histories if rng.random() < 0.3 else [], clients)
            one_life(broker, rng)
            for history in histories:
                history.check_stored(broker.address, PLACES)
            assert time.monotonic() - started < options.seconds_max, "the run takes too long"
        wait_progress(load, histories, clients)
        finish(load, clients)
        logs = read_all(broker.address, PLACES)
        records = sum(len(log) for log in logs.values())
        for history in histories:
            wait_for(f"{history.name} at the end of the log",
                     lambda history=history: history.committed_count == records, 60, clients)
        finish(members, clients)
        faults = []
        for place, log in logs.items():
            faults += faults_of_log(place, log, load)
        for history in histories:
            history.check_stored(broker.address, PLACES)
            faults += faults_of_group(history, logs)
        faults += faults_of_end(broker, options, directory)
        report(broker, load, members, records, started)
        return faults
    finally:
        broker.clean_up()


def finish(threads, clients):
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(70)
        assert not thread.is_alive(), "a client did not come to its end"
    errors = [each.error for each in clients if each.error]
    assert not errors, errors


def faults_of_end(broker, options, directory):
    """SIGTERM must be a clean end, and leave a WAL in which every frame verifies."""
    faults = []
    status = broker.stop()
    if status not in (0, 143 if options.no_wal_verify else 0):
        faults.append(f"SIGTERM ended the broker with {status}")
    with open(broker.log_path, encoding="utf-8") as log:
        panics = [line.strip() for line in log if "panicked" in line]
    faults += panics[:3]
    if not options.no_wal_verify:
        command = [options.binary, "wal", "verify", os.path.join(directory, "data", "wal")]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        print(verified.stdout.strip())
        if verified.returncode != 0:
            faults.append(f"wal verify: {verified.stderr.strip()}")
    return faults


def report(broker, load, members, records, started):
    sent = sum(sum(each.sent.values()) for each in load)
    acknowledged = sum(each.acknowledged_count for each in load)
    refused = sum(len(each.refused) for each in load)
    read = sum(each.read_count for each in members)
    print(f"kills {broker.kills}, slowest start {broker.slowest_start:.2f} s; records sent {sent}, "
          f"acknowledged {acknowledged}, refused {refused}, in the log {records}; "
          f"read by groups {read}; {time.monotonic() - started:.0f} s")


def conclude(name, passed, options, run):
    """Runs in a directory of its own, which is kept if there are faults; prints the verdict."""
    print(f"seed {options.seed}", flush=True)
    directory = tempfile.mkdtemp(prefix=f"{name}.", dir=os.environ.get("CRASH_DIR"))
    try:
        faults = run(options, directory)
    except (AssertionError, KafkaException) as error:
        faults = [str(error)]
    for fault in faults[:40]:
        print(f"FAULT {fault}")
    if faults:
        print(f"data and broker log are kept in {directory}")
        print(f"{name}: 0 passed, {len(faults)} failed")
        sys.exit(1)
    shutil.rmtree(directory)
    print(f"{name}: {passed} passed, 0 failed")


if __name__ == "__main__":
    conclude("crash", 1, arguments(), run)
