"""What every Python client sends, and how it proves that it came back once and unchanged."""

import os
import random
import sys
import zlib
from collections import Counter, defaultdict

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS_PER_CODEC = 400
HEADERS = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b"")]


def bootstrap():
    return sys.argv[1] if len(sys.argv) > 1 else os.environ["BOOTSTRAP"]


def topic_name(client):
    return f"smoke-{client}-{random.getrandbits(32):08x}"


def records(codec):
    """(key, value) pairs: text that compresses, noise that does not, an empty and a large one."""
    noise = random.Random(codec)
    for number in range(RECORDS_PER_CODEC):
        key = f"{codec}-{number % 50}".encode()
        value = f"{codec}:{number}:".encode() + b"tailrace " * (number % 64)
        if number % 10 == 0:
            value += noise.randbytes(number)
        if number == 7:
            value = b""
        if number == 13:
            value += b"x" * 200_000
        yield key, value


class History:
    """Records sent and received: the same ones, each once, in each key's order."""

    def __init__(self):
        self.sent = Counter()
        self.received = Counter()
        self.order_sent = defaultdict(list)
        self.order_received = defaultdict(list)
        self.offsets = set()

    @staticmethod
    def _digest(key, value, headers):
        checksum = zlib.crc32(key)
        checksum = zlib.crc32(value or b"", checksum)
        for name, content in headers or ():
            checksum = zlib.crc32(name.encode() + b"=" + (content or b""), checksum)
        return checksum

    def send(self, key, value, headers):
        digest = self._digest(key, value, headers)
        self.sent[digest] += 1
        self.order_sent[key].append(digest)

    def receive(self, partition, offset, key, value, headers):
        assert (partition, offset) not in self.offsets, f"offset {offset} of {partition} came twice"
        self.offsets.add((partition, offset))
        digest = self._digest(key, value, headers)
        self.received[digest] += 1
        self.order_received[key].append(digest)

    @property
    def sent_count(self):
        return self.sent.total()

    @property
    def received_count(self):
        return self.received.total()

    def check(self, client):
        missing, extra = self.sent - self.received, self.received - self.sent
        assert not missing, f"{client}: {missing.total()} of {self.sent_count} records are missing"
        assert not extra, f"{client}: {extra.total()} records too many"
        assert self.order_sent == self.order_received, f"{client}: records of a key changed order"
        checksum = sum(digest * count for digest, count in self.received.items()) % 2**32
        print(f"{client}: {self.received_count} records, checksum {checksum:08x}")
