"""Produce requests as a client would never send them, and one that gives up sooner than any client does."""

import socket
import struct
import time

from kafka.record.default_records import DefaultRecordBatchBuilder

PRODUCE, VERSION = 0, 7
NONE, NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS, OUT_OF_ORDER_SEQUENCE_NUMBER = 0, 6, 19, 45


class Connection:
    """To one broker; OSError without an answer within the time, or at all."""

    def __init__(self, address, seconds):
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        self._address = address

    def produce(self, topic, producer_id, sequence, value=b"x", acks=-1):
        """A batch of one record, for partition 0: the error code and the offset."""
        builder = DefaultRecordBatchBuilder(2, 0, False, producer_id, 0, sequence, 1 << 16)
        # Of today: retention would remove an older one.
        builder.append(0, int(time.time() * 1000), None, value, [])
        batch, name = bytes(builder.build()), topic.encode()
        request = struct.pack(">hhih", PRODUCE, VERSION, 1, -1)
        request += struct.pack(">hhi", -1, acks, 10_000)
        request += struct.pack(f">ih{len(name)}s", 1, len(name), name)
        request += struct.pack(f">iii{len(batch)}s", 1, 0, len(batch), batch)
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        head = self._answers.read(14)
        if len(head) < 14:
            # A broker that knows no leader lets its clients go.
            raise ConnectionError(f"{self._address} closed the connection")
        size, _correlation, _topics, name_size = struct.unpack(">iiih", head)
        _partitions, _index, code, offset = struct.unpack_from(">iihq", self._answers.read(size - 10), name_size)
        return code, offset

    def close(self):
        self._answers.close()
        self._socket.close()


def produce(address, topic, producer_id, sequence, value=b"x", seconds=30, acks=-1):
    """The error code for a batch of one record, over a connection of its own."""
    connection = Connection(address, seconds)
    try:
        return connection.produce(topic, producer_id, sequence, value, acks)[0]
    finally:
        connection.close()
