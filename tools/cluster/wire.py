"""One Produce request as a client would never send it: what a broker says of a sequence number."""

import socket
import struct
import time

from kafka.record.default_records import DefaultRecordBatchBuilder

PRODUCE, VERSION = 0, 7
NONE, NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS, OUT_OF_ORDER_SEQUENCE_NUMBER = 0, 6, 19, 45


def produce(address, topic, producer_id, sequence, value=b"x", seconds=30, acks=-1):
    """The error code for a batch of one record, for partition 0; OSError without an answer, by then or at all."""
    builder = DefaultRecordBatchBuilder(2, 0, False, producer_id, 0, sequence, 1 << 16)
    # Of today: retention would remove an older one.
    builder.append(0, int(time.time() * 1000), None, value, [])
    batch, name = bytes(builder.build()), topic.encode()
    request = struct.pack(">hhih", PRODUCE, VERSION, 1, -1)
    request += struct.pack(">hhi", -1, acks, 10_000)
    request += struct.pack(f">ih{len(name)}s", 1, len(name), name)
    request += struct.pack(f">iii{len(batch)}s", 1, 0, len(batch), batch)
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answers:
            head = answers.read(14)
            if len(head) < 14:
                # A broker that knows no leader lets its clients go.
                raise ConnectionError(f"{address} closed the connection")
            size, _correlation, _topics, name_size = struct.unpack(">iiih", head)
            answer = answers.read(size - 10)
    _partitions, _index, code = struct.unpack_from(">iih", answer, name_size)
    return code
