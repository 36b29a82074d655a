"""Producers whose history has times: each sends a record every few milliseconds, to one partition.

All but one give up on a silent broker after `--request-timeout-ms`, which is how soon a client that
noticed nothing else can look for another leader. `librdkafka` has its defaults else: it is connected to
the leader alone, and has to find another broker first. `librdkafka-eager` is connected to all of them and
retries at once, as kafka-python does.

Each of them has waits of its own: librdkafka looks for late requests once a second, kafka-python may ask
the broker that stands still who leads instead of it. `prober` has none: it goes from broker to broker and
gives each a tenth of a second. What it waits for is the brokers. It sends one record at a time, so that
its gaps say something, and the percentiles of its latencies little.
"""

import threading
import time
import zlib
from collections import defaultdict, deque

from confluent_kafka import Producer
from kafka import KafkaProducer

from wire import NONE, Connection


class Timed(threading.Thread):
    """The history is as that of crash/producers.py, so that the same verdict can judge it."""

    idempotent = True

    def __init__(self, name, place, interval_seconds):
        super().__init__(daemon=True)
        self.name, self.place = name, place
        self.acknowledged = defaultdict(dict)  # place -> sequence -> offset
        self.checksums = defaultdict(list)  # place -> checksum by sequence
        self.sent_at, self.acknowledged_at = [], {}  # by sequence
        self.refused, self.error = [], None
        self._stopping = threading.Event()
        self._interval = interval_seconds

    def run(self):
        while not self._stopping.is_set():
            sequence = len(self.sent_at)
            value = f"{self.name}:{sequence}:".encode()
            self.checksums[self.place].append(zlib.crc32(value))
            self.sent_at.append(time.monotonic())
            self._send(value, sequence)
            time.sleep(self._interval)
        self._finish()

    def stop(self):
        self._stopping.set()
        self.join(90)

    def _send(self, value, sequence):
        raise NotImplementedError

    def _finish(self):
        raise NotImplementedError

    def _note(self, sequence, offset):
        self.acknowledged_at[sequence] = time.monotonic()
        self.acknowledged[self.place][sequence] = offset

    def longest_gap(self, since, until=float("inf")):
        """From one acknowledgement to the next, the later of them after `since`, the first before `until`."""
        times = sorted(self.acknowledged_at.copy().values())
        gaps = (gap for gap in zip(times, times[1:]) if gap[1] > since and gap[0] < until)
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    def longest_gap_ms(self, since, until=float("inf")):
        before, after = self.longest_gap(since, until)
        return 1000 * (after - before)

    def await_acknowledgement(self, since):
        """A client may wait longer than the fault lasts before it connects again."""
        while max(self.acknowledged_at.copy().values()) < since:
            assert time.monotonic() < since + 60, "nothing was acknowledged for a minute"
            time.sleep(0.05)

    def latencies_ms(self, since, until):
        """Of what was sent in between."""
        pairs = [(at, self.acknowledged_at.get(sequence)) for sequence, at in enumerate(list(self.sent_at))]
        return [1000 * (acknowledged - at) for at, acknowledged in pairs if since <= at < until and acknowledged]


class OfKafkaPython(Timed):
    def __init__(self, bootstrap, place, options):
        super().__init__("kafka-python", place, options.interval_ms / 1000)
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","), acks="all", enable_idempotence=True, linger_ms=0,
            retry_backoff_ms=10, reconnect_backoff_ms=10, reconnect_backoff_max_ms=50,
            request_timeout_ms=options.request_timeout_ms, delivery_timeout_ms=60_000,
            metadata_max_age_ms=60_000, max_block_ms=60_000)

    def _send(self, value, sequence):
        topic, partition = self.place
        future = self._producer.send(topic, value, partition=partition)
        future.add_callback(lambda told: self._note(sequence, told.offset))
        future.add_errback(lambda error: self.refused.append(repr(error)))

    def _finish(self):
        self._producer.flush(60)
        self._producer.close()


class OfLibrdkafka(Timed):
    SETTINGS = {}

    def __init__(self, bootstrap, place, options):
        super().__init__("librdkafka", place, options.interval_ms / 1000)
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 0,
            "message.timeout.ms": 60_000, "log_level": 2, "error_cb": lambda _: None,
            "socket.timeout.ms": options.request_timeout_ms,
            "socket.connection.setup.timeout.ms": max(1000, options.request_timeout_ms), **self.SETTINGS})

    def _send(self, value, sequence):
        def delivered(error, message):
            if error:
                self.refused.append(str(error))
            else:
                self._note(sequence, message.offset())
        topic, partition = self.place
        self._producer.produce(topic, value, partition=partition, on_delivery=delivered)

    def run(self):
        # What was acknowledged is to be noted when it is, and not when the next record is sent.
        threading.Thread(target=self._poll, daemon=True).start()
        super().run()

    def _poll(self):
        while not self._stopping.is_set():
            self._producer.poll(0.01)

    def _finish(self):
        self._producer.flush(60)


class OfEagerLibrdkafka(OfLibrdkafka):
    SETTINGS = {"enable.sparse.connections": False, "retry.backoff.ms": 10, "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 50}


class Prober(Timed):
    """One record at a time, with sequence numbers, until a broker acknowledges it."""

    PRODUCER_ID, PATIENCE_SECONDS = 4711, 0.1

    def __init__(self, bootstrap, place, options):
        super().__init__("prober", place, options.interval_ms / 1000)
        self._addresses = deque(bootstrap.split(","))
        self._connection = None

    def _send(self, value, sequence):
        while True:
            try:
                if not self._connection:
                    self._connection = Connection(self._addresses[0], self.PATIENCE_SECONDS)
                code, offset = self._connection.produce(self.place[0], self.PRODUCER_ID, sequence, value)
            except OSError:
                code = None
            if code == NONE:
                return self._note(sequence, offset)
            self._finish()
            self._addresses.rotate(-1)

    def _finish(self):
        if self._connection:
            self._connection.close()
            self._connection = None


CLIENTS = {"prober": Prober, "kafka-python": OfKafkaPython, "librdkafka": OfLibrdkafka,
           "librdkafka-eager": OfEagerLibrdkafka}


def add_arguments(parser):
    """What the clients above are told by."""
    parser.add_argument("--client", choices=CLIENTS, default="prober", help="whose history is measured")
    parser.add_argument("--interval-ms", type=float, default=5)
    parser.add_argument("--request-timeout-ms", type=int, default=300)
