"""Reads the whole log back with a fresh group and holds it against the producers' histories."""

import time
import zlib

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

# How long nothing may come: a whole log takes as long as its store and the machine make it.
STANDSTILL_SECONDS_MAX = 120


def read_all(address, places):
    """(topic, partition) -> list of (offset, sender, sequence, checksum), to the high watermark."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "verdict", "log_level": 2,
                         "enable.auto.commit": False})
    ends = {place: consumer.get_watermark_offsets(TopicPartition(*place), 30)[1] for place in places}
    consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
    logs = {place: [] for place in places}
    deadline = time.monotonic() + STANDSTILL_SECONDS_MAX
    while any((log[-1][0] + 1 if log else 0) < ends[place] for place, log in logs.items()):
        stuck = f"the log is not at its end, and nothing came in {STANDSTILL_SECONDS_MAX} s"
        assert time.monotonic() < deadline, stuck
        for message in consumer.consume(5_000, 0.5):
            deadline = time.monotonic() + STANDSTILL_SECONDS_MAX
            assert not message.error(), message.error()
            sender, sequence, _ = message.value().split(b":", 2)
            logs[message.topic(), message.partition()].append(
                (message.offset(), sender.decode(), int(sequence), zlib.crc32(message.value())))
    consumer.close()
    return logs


def is_told(offset):
    """librdkafka does not know where a batch is of which it heard only by the success of the next one (IMPLICITACK)."""
    return offset is not None and offset >= 0


def faults_of_log(place, log, senders):
    """Dense offsets; each acknowledged record there, at its offset; once and in order."""
    faults = []
    offsets = [offset for offset, *_ in log]
    if offsets != list(range(len(offsets))):
        faults.append(f"{place}: offsets are not dense")
    for sender in senders:
        found = [(offset, sequence) for offset, name, sequence, _ in log if name == sender.name]
        sequences = [sequence for _, sequence in found]
        acknowledged = sender.acknowledged[place]
        lost = acknowledged.keys() - set(sequences)
        if lost:
            faults.append(f"{place}: {len(lost)} acknowledged records of {sender.name} are lost: "
                          f"{sorted(lost)[:5]}")
        pairs = set(found)
        moved = [sequence for sequence, offset in acknowledged.items()
                 if is_told(offset) and (offset, sequence) not in pairs]
        if moved:
            faults.append(f"{place}: {len(moved)} records of {sender.name} are not at the offset "
                          f"that was acknowledged: {sorted(moved)[:5]}")
        if sender.idempotent and sequences != sorted(set(sequences)):
            wrong = [(offset, sequence) for (offset, sequence), (_, before) in zip(found[1:], found)
                     if sequence <= before]
            faults.append(f"{place}: records of {sender.name} came twice or out of order, "
                          f"(offset, sequence): {wrong[:5]}")
    return faults


def faults_of_group(history, logs):
    """What a group once saw is still there, unchanged; every fault that it noticed itself."""
    faults = list(history.faults)
    for place, seen in history.seen.items():
        stored = {offset: checksum for offset, *_, checksum in logs[place]}
        gone = [offset for offset, checksum in seen.items() if stored.get(offset) != checksum]
        if gone:
            faults.append(f"{history.name}: {len(gone)} records of {place} that it read are gone")
    return faults
