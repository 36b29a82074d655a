"""Brokers that a cluster has to keep out: processes that are started by an edited configuration file, and peers
that only greet."""

import os
import socket
import struct
import subprocess
import time
from contextlib import contextmanager

from kafka.record.util import calc_crc32c

from brokers import read, replace_line
from watched import PATIENCE_SECONDS

# docs/formats/peer.md
HELLO, WELCOME = "<4s16siiHHHHIHQq", "<I4sBHH"
HELLO_SIZE = 4 + struct.calcsize(HELLO)
ACCEPTED, VERDICT_VERSION = 0, 5


class Strangers:
    """For a run of `Watched`."""

    def edited(self, node, edit, fresh=True):
        """A configuration file like that of a node. A fresh one has data and objects of its own."""
        text = edit(read(self.cluster.config(node)))
        if fresh:
            text = replace_line(text, "data-dir", f'"{self.directory}/stranger"')
            # The store would keep it out before it met a broker.
            text = replace_line(text, "object-store", f'"file://{self.directory}/stranger-objects"')
        path = os.path.join(self.directory, f"edited-{self.rng.getrandbits(32)}.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def refuse(self, config, said, *flags):
        """It ends at once, with one line that says why."""
        ended = subprocess.run([self.options.binary, "broker", "--config", config, *flags], capture_output=True,
                               text=True, timeout=PATIENCE_SECONDS, check=False)
        lines = [line for line in ended.stderr.splitlines() if line]
        print(f"    exit {ended.returncode}: {ended.stderr}", end="")
        assert ended.returncode == 1 and len(lines) == 1 and said in lines[0], ended.stderr

    @contextmanager
    def stranger(self, config, *flags):
        """A broker that the others do not let in, for a while; what it prints is in the file."""
        log = config + ".log"
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen([self.options.binary, "broker", "--config", config, *flags],
                                       stdout=file, stderr=subprocess.STDOUT)
        try:
            yield log
            assert "ready on" not in read(log)
        finally:
            process.kill()
            process.wait()

    def peer_address(self, node):
        """Where a node's first shard listens to the others."""
        nodes = read(self.cluster.config(0))
        host, port = nodes.split(f'"{node}@')[1].split('"')[0].rsplit(":", 1)
        return host, int(port)


def hello(cluster_id, sender, to, versions):
    """The greeting of one that speaks these versions."""
    body = struct.pack(HELLO, b"TRH1", cluster_id.bytes, sender, to, 0, 1, *versions, 0, 0, 1, int(time.time() * 1000))
    return struct.pack("<I", calc_crc32c(body)) + body


def greet(address, greeting):
    """The verdict on a greeting."""
    with socket.create_connection(address, PATIENCE_SECONDS) as connection:
        connection.sendall(greeting)
        answer = connection.makefile("rb").read(struct.calcsize(WELCOME))
    _crc, magic, verdict, _version, _ = struct.unpack(WELCOME, answer)
    assert magic == b"TRW1", answer
    return verdict


def refuse_next(server, verdict):
    """Takes a connection of a broker, and gives that verdict on its greeting."""
    connection, _ = server.accept()
    with connection:
        assert len(connection.makefile("rb").read(HELLO_SIZE)) == HELLO_SIZE, "it closed the connection"
        body = struct.pack(WELCOME, 0, b"TRW1", verdict, 0, 0)[4:]
        connection.sendall(struct.pack("<I", calc_crc32c(body)) + body)
        connection.recv(1)
