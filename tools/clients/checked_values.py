"""Values of 1 KiB that carry their own checksum, for a tool that sends lines of a file.

checked_values.py write FILE | read BOOTSTRAP TOPIC COUNT
"""

import random
import string
import sys
import time
import zlib

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

SIZE = 1024
LINES = 2000


def write(path):
    rng = random.Random(1)
    with open(path, "w", encoding="ascii") as file:
        for _ in range(LINES):
            body = "".join(rng.choices(string.ascii_letters, k=SIZE - 8))
            file.write(f"{zlib.crc32(body.encode()):08x}{body}\n")


def read(bootstrap, topic, count):
    # check.crcs: the checksum of each batch is checked too.
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "checked", "check.crcs": True})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    places = [TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions]
    ends = {each.partition: consumer.get_watermark_offsets(each, 30)[1] for each in places}
    assert sum(ends.values()) == count, f"the partitions end at {ends}, {count} records were sent"
    consumer.assign(places)
    following = dict.fromkeys(ends, 0)
    total, started = 0, time.monotonic()
    while following != ends:
        for message in consumer.consume(10_000, 5):
            assert not message.error(), message.error()
            partition, offset, value = message.partition(), message.offset(), message.value()
            assert offset == following[partition], f"offset {offset}, not {following[partition]}"
            checksum = zlib.crc32(value[8:])
            assert len(value) == SIZE and int(value[:8], 16) == checksum, f"offset {offset} changed"
            following[partition] += 1
            total = (total + checksum) % 2**64
        assert time.monotonic() - started < 300, f"only {following} of {ends} after 300 s"
    print(f"read {count} records with right checksums, their sum {total:016x}, "
          f"in {time.monotonic() - started:.1f} s")


if sys.argv[1] == "write":
    write(sys.argv[2])
else:
    read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
