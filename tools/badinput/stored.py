"""A broker whose records are in the object store and nowhere else, and what becomes of them."""

import os
import shutil
import socket
import struct
import subprocess
import time

RECORDS = 200
TOPICS = ("kept", "other")
RUNS = 3
SECONDS_MAX = 30
FETCH, FETCH_VERSION = 1, 4


def flip_one(data):
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


class Stored:
    """Each run of a broker stored one object, with as many records of each topic."""

    def __init__(self, world):
        self.world = world
        self.directory = world.path("stored")
        self.keys = []
        for run in range(RUNS):
            # Only the clean stop makes an object.
            with world.broker(self.directory, "--set", "offload.age.ms=3600000") as (address, _):
                for topic in TOPICS:
                    lines = "".join(f"{line}\n" for line in self.records(topic, run))
                    subprocess.run(["kcat", "-b", address, "-P", "-t", topic, "-p", "0"],
                                   input=lines, text=True, check=True, timeout=SECONDS_MAX)
            self.keys += [key for key in self.list("group") if key not in self.keys]
        assert len(self.keys) == RUNS, f"not an object for each run: {self.keys}"
        self.rebuild(world.path("rebuilt"))

    @staticmethod
    def records(topic, run):
        return [f"{topic} {run} {number}" for number in range(RECORDS)]

    def rebuild(self, directory):
        """Replaces the data directory by one that is made from its objects alone: a WAL without
        records. Gives what the command printed."""
        ended = subprocess.run([self.world.binary, "recover", "--object-store", self._url(),
                                "--data-dir", directory, "--wal-size", "64MiB"], text=True,
                               check=True, capture_output=True, timeout=60)
        shutil.move(os.path.join(self.directory, "objects"), directory)
        self.directory = directory
        return ended.stdout

    def _url(self):
        return f"file://{self.directory}/objects"

    def path(self, key):
        return os.path.join(self.directory, "objects", key)

    def list(self, prefix):
        root = os.path.join(self.directory, "objects")
        paths = [os.path.join(folder, name) for folder, _, names
                 in os.walk(os.path.join(root, prefix)) for name in names]
        return sorted(os.path.relpath(path, root) for path in paths)

    def change(self, key, change):
        """Gives the bytes of an object to `change`, and stores what it returns; gives the old."""
        with open(self.path(key), "rb") as file:
            before = file.read()
        with open(self.path(key), "wb") as file:
            file.write(change(before))
        return before

    def flip_newest_manifest(self):
        """Of the data group, as no broker runs; gives its key."""
        newest = self.list("manifest/00000000000000000001")[-1]
        self.change(newest, flip_one)
        return newest

    def check_served(self, address, lost):
        """All runs but the second are read back whole, and that one as well but for topics that
        are `lost`: there the first record is refused."""
        for topic in TOPICS:
            for run in range(RUNS):
                offset = run * RECORDS
                if run == 1 and topic in lost:
                    error, size = fetch(address, topic, offset)
                    assert error != 0 and size == 0, f"{topic} {offset}: {error}, {size} bytes"
                    continue
                ended = subprocess.run(["kcat", "-b", address, "-C", "-t", topic, "-p", "0", "-q",
                                        "-o", str(offset), "-c", str(RECORDS)], timeout=SECONDS_MAX,
                                       capture_output=True, text=True, check=True)
                assert ended.stdout.splitlines() == self.records(topic, run), f"{topic} {offset}"

    def check_named(self, output):
        """The broker's output says once which object it is; a moment after the client's error."""
        deadline = time.monotonic() + SECONDS_MAX
        while self.keys[1] not in output():
            assert time.monotonic() < deadline, f"not named: {output()}"
            time.sleep(0.05)
        lines = [line for line in output().splitlines() if self.keys[1] in line]
        assert len(lines) == 1 and "tailrace object verify" in lines[0], output()

    def verify(self):
        """The errors that `tailrace object verify` finds; it fails if there are some."""
        ended = subprocess.run([self.world.binary, "object", "verify", "--object-store",
                                self._url()], capture_output=True, text=True, timeout=60,
                               check=False)
        errors = [line for line in ended.stdout.splitlines() if line.startswith("error: ")]
        assert ended.returncode == (1 if errors else 0), f"{ended.returncode}: {ended.stdout}"
        return errors


def fetch_request(topic, offset, correlation=1):
    """A Fetch of 1 MiB of partition 0, with its size."""
    text = lambda value: struct.pack(">h", len(value)) + value.encode()
    request = struct.pack(">hhi", FETCH, FETCH_VERSION, correlation) + text("badinput")
    request += struct.pack(">iiiib", -1, 1000, 1, 1 << 20, 0)
    request += struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, 0, offset, 1 << 20)
    return struct.pack(">i", len(request)) + request


def connect(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS_MAX)


def read_reply(replies):
    """Without its size, from what `makefile` gives."""
    return replies.read(struct.unpack(">i", replies.read(4))[0])


def fetch(address, topic, offset):
    """Error code and bytes of records of one Fetch: clients would try again for ever."""
    with connect(address) as connection:
        connection.sendall(fetch_request(topic, offset))
        body = read_reply(connection.makefile("rb"))
    # Correlation id, throttle time, one topic with its name, one partition with its number.
    at = 4 + 4 + 4 + 2 + len(topic) + 4 + 4
    error, _, _, aborted = struct.unpack_from(">hqqi", body, at)
    at += 22 + 16 * max(aborted, 0)
    return error, max(struct.unpack_from(">i", body, at)[0], 0)
