"""Producers that write their own history: what they sent, what was acknowledged and where."""

import threading
from collections import defaultdict

from confluent_kafka import KafkaException, Producer

OUTSTANDING_MAX = 400


class Sender(threading.Thread):
    """One producer over all partitions; its records carry its name and a sequence per partition."""

    def __init__(self, name, address, partitions, rng, settings, value_size_max):
        super().__init__(daemon=True)
        self.name = name
        self.idempotent = settings["enable.idempotence"]
        self.sent = defaultdict(int)  # (topic, partition) -> records sent
        self.acknowledged = defaultdict(dict)  # (topic, partition) -> sequence -> offset
        self.acknowledged_count = 0
        self.refused = []
        self.error = None
        self._partitions = partitions
        self._rng = rng
        self._value_size_max = value_size_max
        self._outstanding = 0
        self._stopping = threading.Event()
        # Reconnect soon, so that each life of the broker sees load; all else is the default.
        self._producer = Producer({"bootstrap.servers": address, "acks": "all",
                                   "reconnect.backoff.max.ms": 200, "log_level": 2,
                                   "error_cb": self._on_error, **settings})

    def run(self):
        try:
            while not self._stopping.is_set():
                self._producer.poll(0.01)
                for _ in range(self._rng.randrange(1, 40)):
                    if self._outstanding < OUTSTANDING_MAX:
                        self._send_one()
            left = self._producer.flush(60)
            assert left == 0, f"{left} records were neither acknowledged nor refused"
        except (AssertionError, KafkaException) as error:
            self.error = f"{self.name}: {error}"

    def stop(self):
        self._stopping.set()

    def _send_one(self):
        topic, partition = self._rng.choice(self._partitions)
        sequence = self.sent[topic, partition]
        self.sent[topic, partition] += 1
        self._outstanding += 1
        value = self._value((topic, partition), sequence)

        def delivered(error, message):
            self._outstanding -= 1
            if error:
                self.refused.append(str(error))
            else:
                self.acknowledged[topic, partition][sequence] = message.offset()
                self.acknowledged_count += 1

        self._producer.produce(topic, value, f"k{sequence % 97}".encode(), partition,
                               on_delivery=delivered)

    def _value(self, _, sequence):
        padding = b"." * self._rng.randrange(self._value_size_max)
        return f"{self.name}:{sequence}:".encode() + padding

    def _on_error(self, error):
        if error.fatal():
            self.error = f"{self.name}: fatal: {error}"


def senders(address, partitions, rng, random_for):
    """Two plain idempotent producers, one without idempotence, one with large batches."""
    plain = {"enable.idempotence": True}
    bulk = {"enable.idempotence": True, "linger.ms": 30, "compression.type": "lz4"}
    return [
        Sender("first", address, partitions, random_for(rng), plain, 200),
        Sender("second", address, partitions, random_for(rng), plain, 200),
        Sender("unguarded", address, partitions, random_for(rng), {"enable.idempotence": False}, 200),
        Sender("bulk", address, partitions, random_for(rng), bulk, 8_000),
    ]
