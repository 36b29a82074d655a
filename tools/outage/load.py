"""Clients with a history of their own: what was sent, with its checksum, and what was read."""

import threading
import time
import zlib
from collections import defaultdict

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from producers import Sender


class Steady(Sender):
    """An idempotent producer at a steady rate, which notes the checksum of all that it sends."""

    def __init__(self, name, address, partitions, rng, records_per_second, value_size_max,
                 **more_settings):
        settings = {"enable.idempotence": True, "linger.ms": 20, "throttle_cb": self._on_throttle,
                    # An outage of minutes is what the run is about.
                    "message.timeout.ms": 900_000, **more_settings}
        self.checksums = defaultdict(list)  # (topic, partition) -> checksum by sequence
        self.throttles_ms = []
        self.records_per_second = records_per_second
        super().__init__(name, address, partitions, rng, settings, value_size_max)

    def run(self):
        try:
            started, due = time.monotonic(), 0.0
            while not self._stopping.is_set():
                self._producer.poll(0.005)
                now = time.monotonic()
                due = min(due + (now - started) * self.records_per_second, self.OUTSTANDING_MAX)
                started = now
                while due >= 1 and self._outstanding < self.OUTSTANDING_MAX:
                    due -= 1
                    self._send_one()
            left = self._producer.flush(120)
            assert left == 0, f"{left} records were neither acknowledged nor refused"
        except (AssertionError, KafkaException) as error:
            self.error = f"{self.name}: {error}"

    OUTSTANDING_MAX = 2_000

    def _value(self, place, sequence):
        padding = self._rng.randbytes(self._rng.randrange(self._value_size_max))
        value = f"{self.name}:{sequence}:".encode() + padding
        self.checksums[place].append(zlib.crc32(value))
        return value

    def _on_throttle(self, event):
        self.throttles_ms.append(round(event.throttle_time * 1000))


class Reader(threading.Thread):
    """Reads all partitions, from the beginning on, and holds each record against the senders' histories.
    One that starts over reads what is old again and again: from objects. A broker that cannot read
    them now may say so; a wrong record may never come."""

    def __init__(self, name, address, places, senders, starts_over, **more_settings):
        super().__init__(daemon=True)
        self.faults = []
        self.ends = {place: 0 for place in places}  # after the last record read
        self.count = 0
        self.rounds = 0
        self.error = None
        self.name = name
        self._senders = {sender.name: sender for sender in senders}
        self._starts_over = starts_over
        self._stopping = threading.Event()
        self._consumer = Consumer({"bootstrap.servers": address, "group.id": name, "log_level": 2,
                                   "enable.auto.commit": False, "fetch.wait.max.ms": 100,
                                   "fetch.error.backoff.ms": 100, "error_cb": lambda _: None,
                                   **more_settings})

    def run(self):
        try:
            while not self._stopping.is_set():
                self._read_round()
                self.rounds += 1
            self._consumer.close()
        except KafkaException as error:
            self.error = f"{self.name}: {error}"

    def stop(self):
        self._stopping.set()

    def _read_round(self):
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in self.ends])
        ends = dict(self.ends)
        if self._starts_over:
            self.ends = {place: 0 for place in self.ends}
        while not self._stopping.is_set():
            for message in self._consumer.consume(2_000, 0.2):
                if not message.error():
                    self._check(message)
            if self._starts_over and all(self.ends[place] >= end for place, end in ends.items()):
                if self.count:
                    return

    def _check(self, message):
        place, offset = (message.topic(), message.partition()), message.offset()
        if offset != self.ends[place]:
            self.faults.append(f"{self.name}: {offset} of {place} came after {self.ends[place]}")
        self.ends[place] = offset + 1
        self.count += 1
        fault = fault_of_record(self._senders, place, message.value())
        if fault:
            self.faults.append(f"{self.name}: offset {offset} of {place}: {fault}")


def fault_of_record(senders, place, value):
    """None if a sender sent it like this."""
    name, sequence, _ = value.split(b":", 2)
    sender = senders.get(name.decode())
    if sender is None or not sequence.isdigit() or int(sequence) >= len(sender.checksums[place]):
        return "nobody sent it"
    if sender.checksums[place][int(sequence)] != zlib.crc32(value):
        return "its checksum is another one"
    return None
