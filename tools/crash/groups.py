"""Consumer groups that write their own history: what they read, what they committed."""

import threading
import time
import zlib
from collections import defaultdict

from confluent_kafka import Consumer, KafkaException, TopicPartition

COMMIT_SECONDS = 0.2


class GroupHistory:
    """Of one group: a lower and an upper bound of each committed offset, and all that was read."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.committed = defaultdict(int)  # acknowledged commits
        self.attempted = defaultdict(int)  # asked for, perhaps acknowledged
        self.seen = defaultdict(dict)  # (topic, partition) -> offset -> checksum
        self.faults = []

    @property
    def committed_count(self):
        """Records below the acknowledged commits, over all partitions."""
        with self.lock:
            return sum(self.committed.values())

    def check_position(self, place, offset, least):
        """The first record after an assignment: at a commit that was at least tried."""
        with self.lock:
            most = self.attempted[place]
        if not least <= offset <= most:
            self.faults.append(f"{self.name} resumed {place} at {offset}, committed {least}..{most}")

    def check_stored(self, address, places):
        """What the broker says of the group, against what was acknowledged before."""
        with self.lock:
            least = dict(self.committed)
        for stored in committed_offsets(address, self.name, places):
            place, offset = (stored.topic, stored.partition), max(stored.offset, 0)
            with self.lock:
                most = self.attempted[place]
            if not least.get(place, 0) <= offset <= most:
                self.faults.append(f"{self.name} has {offset} stored for {place}, committed "
                                   f"{least.get(place, 0)}..{most}")


def committed_offsets(address, group, places):
    """Asks until the group's coordinator has loaded it."""
    reader = Consumer({"bootstrap.servers": address, "group.id": group, "log_level": 2})
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = reader.committed([TopicPartition(*place) for place in places], timeout=20)
            assert all(each.error is None for each in answer), [each.error for each in answer]
            reader.close()
            return answer
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Member(threading.Thread):
    """One member at a time: reads, commits, and now and then leaves and joins again."""

    def __init__(self, history, address, topics, rng, stays_seconds):
        super().__init__(daemon=True)
        self.error = None
        self.read_count = 0
        self._history = history
        self._settings = {"bootstrap.servers": address, "group.id": history.name,
                          "auto.offset.reset": "earliest", "enable.auto.commit": False,
                          "session.timeout.ms": 10_000, "reconnect.backoff.max.ms": 200,
                          "log_level": 2}
        self._topics = topics
        self._rng = rng
        self._stays_seconds = stays_seconds
        self._stopping = threading.Event()

    def stop(self):
        self._stopping.set()

    def run(self):
        try:
            while not self._stopping.is_set():
                self._membership()
        except (AssertionError, KafkaException) as error:
            self.error = f"{self._history.name}: {error}"

    def _membership(self):
        self._next = {}  # place -> offset that must come next
        self._least = {}  # place -> acknowledged commit when it was assigned
        consumer = Consumer(self._settings)
        consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked)
        leave_at = time.monotonic() + self._stays_seconds * self._rng.uniform(0.5, 1.5)
        commit_at = 0.0
        while time.monotonic() < leave_at and not self._stopping.is_set():
            for message in consumer.consume(500, 0.05):
                if not message.error():
                    self._read(message)
            if self._next and time.monotonic() >= commit_at:
                self._commit(consumer)
                commit_at = time.monotonic() + COMMIT_SECONDS
        consumer.close()

    def _assigned(self, _consumer, partitions):
        with self._history.lock:
            for each in partitions:
                place = (each.topic, each.partition)
                self._next.pop(place, None)
                self._least[place] = self._history.committed[place]

    def _revoked(self, _consumer, partitions):
        for each in partitions:
            self._next.pop((each.topic, each.partition), None)

    def _read(self, message):
        place, offset = (message.topic(), message.partition()), message.offset()
        if place not in self._least:
            return
        expected = self._next.get(place)
        if expected is None:
            self._history.check_position(place, offset, self._least[place])
        elif offset != expected:
            self._history.faults.append(f"{self._history.name} read {offset} of {place}, "
                                        f"expected {expected}")
        self._next[place] = offset + 1
        self.read_count += 1
        checksum = zlib.crc32(message.value())
        before = self._history.seen[place].setdefault(offset, checksum)
        if before != checksum:
            self._history.faults.append(f"{place} offset {offset} changed after it was read")

    def _commit(self, consumer):
        wanted = dict(self._next)
        with self._history.lock:
            for place, offset in wanted.items():
                self._history.attempted[place] = max(self._history.attempted[place], offset)
        try:
            offsets = [TopicPartition(*place, offset) for place, offset in wanted.items()]
            answer = consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException:
            return  # the broker is down, or the group is moving: not acknowledged
        with self._history.lock:
            for each in answer:
                if each.error is None:
                    place = (each.topic, each.partition)
                    committed = self._history.committed
                    committed[place] = max(committed[place], each.offset)
