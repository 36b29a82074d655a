"""Bad input: one clear line on standard error, a non-zero exit, and nothing lost.

Cases that touch a data directory do so on one that holds records; afterwards these are all there.
"""

import os
import shutil
import socketserver
import struct
import subprocess
import sys
import threading

import crc32c

import peer_tls
from stored import RECORDS, Stored, connect, fetch_request, flip_one, read_reply
from world import Refusal, World, free_port

SUPERBLOCK_COPIES = [0, 4096, 8192, 12288]  # docs/formats/wal-superblock.md
SUPERBLOCK_SIZE = 512


def produce(address):
    lines = "".join(f"record {number}\n" for number in range(RECORDS))
    subprocess.run(["kcat", "-b", address, "-P", "-t", "kept", "-p", "0"], input=lines, text=True,
                   check=True, timeout=30)


def consume(address):
    ended = subprocess.run(["kcat", "-b", address, "-C", "-t", "kept", "-p", "0", "-e", "-q"],
                           capture_output=True, text=True, check=True, timeout=30)
    expected = [f"record {number}" for number in range(RECORDS)]
    assert ended.stdout.splitlines() == expected, "records were lost"


def filled(world, name, **settings):
    """A data directory with records in it."""
    directory = world.path(name)
    with world.broker(directory, **settings) as (address, _):
        produce(address)
    return directory


def still_there(world, directory, **settings):
    with world.broker(directory, **settings) as (address, _):
        consume(address)


def change_superblocks(directory, places, change):
    """Gives each copy's bytes to `change` and writes back what it returns, with a right checksum
    if `change` says so."""
    path = os.path.join(directory, "wal")
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place)
            old = file.read(SUPERBLOCK_SIZE)
            body, sealed = change(bytearray(old[4:]))
            crc = struct.pack("<I", crc32c.crc32c(bytes(body))) if sealed else old[:4]
            file.seek(place)
            file.write(crc + bytes(body))


def flip(body):
    body[100] ^= 0xFF
    return body, False


def next_version(body):
    body[12:16] = struct.pack("<I", 2)
    return body, True


def unknown_flag(world):
    return Refusal(world.dev(world.path("none"), "--no-such-flag")).check("--no-such-flag")


def unknown_key(world):
    command = world.dev(world.path("none"), "--set", "no.such.key=1")
    return Refusal(command).check("no.such.key")


def bad_group_count(world):
    """It counts when a cluster begins; what is said later is not looked at."""
    directory = world.path("grouped")
    with world.broker(directory, "--data-groups-per-core", "2") as (address, _):
        produce(address)
    still_there(world, directory)
    with world.broker(directory, "--data-groups-per-core", "3") as (address, _):
        consume(address)
    return Refusal(world.dev(world.path("none"), "--data-groups-per-core", "257")).check("--data-groups-per-core", "257")


def no_cluster_there(world):
    """Nobody listens, something else does, and a broker that stands alone."""
    status = [world.binary, "cluster", "status", "--bootstrap"]
    Refusal([*status, f"127.0.0.1:{free_port()}"]).check("cannot reach a broker", "refused")
    Refusal([*status, "127.0.0.1"]).check("no port")
    Refusal([world.binary, "cluster", "add", "3"]).check("id@host:port")
    with socketserver.TCPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        line = Refusal([*status, "127.0.0.1:%d" % server.server_address[1]]).check("does not answer as a broker")
    with world.broker(world.path("alone")) as (address, _):
        bootstrap = ["--bootstrap", address]
        subprocess.run([*status, address], check=True, capture_output=True)
        add = [world.binary, "cluster", "add", "3@127.0.0.1:10092", *bootstrap]
        Refusal(add).check("invalid_request", "`nodes`")
        Refusal([world.binary, "cluster", "drain", "9", *bootstrap]).check("no broker 9")
        Refusal([world.binary, "cluster", "remove", "9", *bootstrap]).check("broker_id_not_registered")
        Refusal([world.binary, "cluster", "drain", "0", "--cancel", *bootstrap]).check("does not drain")
    return line


class Web(socketserver.BaseRequestHandler):
    """Speaks, but not Kafka."""

    def handle(self):
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def lone_replacement(world):
    """Nobody is there to get the log from."""
    config, directory = world.path("alone.toml"), world.path("alone")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'data-dir = "{directory}"\nlisten = "127.0.0.1:{free_port()}"\nadmin = "127.0.0.1:{free_port()}"\n')
    command = [world.binary, "broker", "--config", config, "--replacement"]
    line = Refusal(command).check("other brokers", "`nodes`")
    assert not os.path.exists(os.path.join(directory, "wal")), "a WAL was made"
    # The same of a device that was prepared for one.
    os.makedirs(directory, exist_ok=True)
    wal = os.path.join(directory, "wal")
    subprocess.run([world.binary, "format", "--path", wal, "--size", "64MiB", "--replacement"], check=True,
                   capture_output=True)
    Refusal(command[:-1]).check("other brokers", "`nodes`")
    return line


def bad_size(world):
    return Refusal(world.dev(world.path("none"), wal_size="1 elephant")).check("size", "elephant")


def no_io_uring(world):
    inject = ["strace", "-f", "-qq", "-o", world.path("trace"), "-e", "trace=io_uring_setup", "-e"]
    for error in ("ENOSYS", "EPERM"):
        refusal = Refusal(world.dev(world.path("none")),
                          [*inject, f"inject=io_uring_setup:error={error}"])
        line = refusal.check("io_uring", "seccomp|sysctl|io_uring_disabled|kernel")
    return line


def memlock_too_low(world):
    directory = world.path("memlock")
    without = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit",
               "--memlock=4096:4096"]
    return Refusal(world.dev(directory), without).check("memlock")


def device_in_use(world):
    device = world.loop_device("used.img", 64 << 20)
    world.run("mkfs.ext4", "-q", device)
    world.mount("used", device)
    return Refusal([world.binary, "format", "--path", device]).check(device, "in use|busy")


def device_of_another_system(world):
    device = world.loop_device("foreign.img", 64 << 20)
    world.run("mkfs.ext4", "-q", device)
    line = Refusal([world.binary, "format", "--path", device]).check("holds|not empty|--force")
    world.run("fsck.ext4", "-fn", device)
    return line


def other_system_in_data_dir(world):
    directory = world.path("alien")
    os.mkdir(directory)
    with open(os.path.join(directory, "wal"), "wb") as file:
        file.write(os.urandom(64 << 20))
    return Refusal(world.dev(directory)).check("another system|not a|holds")


def newer_version(world):
    directory = filled(world, "newer")
    before = open(os.path.join(directory, "wal"), "rb").read(SUPERBLOCK_COPIES[-1] + 4096)
    change_superblocks(directory, SUPERBLOCK_COPIES, next_version)
    line = Refusal(world.dev(directory)).check("version")
    with open(os.path.join(directory, "wal"), "r+b") as file:
        file.write(before)
    still_there(world, directory)
    return line


def slice_of_another_node(world):
    """The second core's WAL is another node's."""
    ours, theirs = (os.path.join(filled(world, name, cores=2), "wal") for name in ("ours", "theirs"))
    half = os.path.getsize(ours) // 2
    with open(ours, "r+b") as here, open(theirs, "rb") as there:
        here.seek(half)
        before = here.read()
        there.seek(half)
        here.seek(half)
        here.write(there.read())
    directory = os.path.dirname(ours)
    line = Refusal(world.dev(directory, cores=2)).check("another|other|belongs", "cluster|node|ring")
    with open(ours, "r+b") as here:
        here.seek(half)
        here.write(before)
    still_there(world, directory, cores=2)
    return line


def no_direct_io(world):
    folder = world.mount("ramfs", "-t", "ramfs", "ramfs")
    return Refusal(world.dev(os.path.join(folder, "data"))).check("o_direct|direct i/o|direct io")


def opened_twice(world):
    directory = filled(world, "twice")
    with world.broker(directory) as (address, _):
        line = Refusal(world.dev(directory)).check("in use|already|locked|another process")
        consume(address)
    return line


def port_in_use(world):
    directory = filled(world, "ports")
    with world.broker(world.path("other")) as (address, _):
        line = Refusal(world.dev(directory, listen=address)).check(address.split(":")[1],
                                                                   "in use")
    still_there(world, directory)
    return line


def replies_not_taken(world):
    """A client asks for 200 MiB and reads nothing before it has asked for all: it is not served on,
    and once it reads it gets everything, in order. Others are served meanwhile."""
    asked, line = 200, "x" * 1023 + "\n"
    with world.broker(world.path("late")) as (address, _):
        subprocess.run(["kcat", "-b", address, "-P", "-t", "long", "-p", "0"], input=line * 1200,
                       text=True, check=True, timeout=30)
        with connect(address) as connection:
            connection.sendall(b"".join(fetch_request("long", 0, number) for number in range(asked)))
            produce(address)
            consume(address)
            replies = connection.makefile("rb")
            for number in range(asked):
                reply = read_reply(replies)
                assert struct.unpack_from(">i", reply) == (number,), f"reply {number} is another's"
                assert len(reply) > 900_000, f"reply {number} has {len(reply)} bytes"
    return f"{asked} replies of 1 MiB, taken late, all there"


def one_superblock_copy(world):
    """Not refused: repaired and reported."""
    directory = filled(world, "one-copy")
    for place in SUPERBLOCK_COPIES:
        change_superblocks(directory, [place], flip)
        with world.broker(directory) as (address, output):
            consume(address)
            reports = [line for line in output().splitlines() if "superblock" in line.lower()]
        assert reports, f"the repair of copy {place} was not reported: {output()}"
        verified = subprocess.run([world.binary, "wal", "verify", os.path.join(directory, "wal")],
                                  capture_output=True, text=True, check=False)
        assert verified.returncode == 0, verified.stderr
    return reports[0]


def all_superblock_copies(world):
    directory = filled(world, "all-copies")
    wal = os.path.join(directory, "wal")
    before = open(wal, "rb").read(SUPERBLOCK_COPIES[-1] + 4096)
    change_superblocks(directory, SUPERBLOCK_COPIES, flip)
    line = Refusal(world.dev(directory)).check("superblock", "damaged|corrupt")
    with open(wal, "r+b") as file:
        file.write(before)
    still_there(world, directory)
    return line


def disk_fills_while_formatting(world):
    device = world.loop_device("small.img", 48 << 20)
    world.run("mkfs.ext4", "-q", device)
    folder = world.mount("small", device)
    directory = os.path.join(folder, "data")
    line = Refusal(world.dev(directory)).check("no space|full")
    # Nothing is left half done: with a size that fits it starts.
    with world.broker(directory, wal_size="16MiB"):
        pass
    return line


def failing_device(world):
    """A device that fails under the broker: it says so and ends; what it acknowledged stays."""
    device = world.loop_device("failing.img", 400 << 20)
    world.run("mkfs.xfs", "-q", device)
    folder = world.mount("failing", device)
    directory = os.path.join(folder, "data")
    with world.broker(directory, ends=1) as (address, output):
        produce(address)
        world.run("xfs_io", "-x", "-c", "shutdown", folder)
        subprocess.run(["kcat", "-b", address, "-P", "-t", "other", "-X",
                        "message.timeout.ms=3000"], input="never acknowledged\n", text=True,
                       capture_output=True, check=False, timeout=30)
    line = output().splitlines()[-1]
    assert "WAL write" in line and "failed" in line, f"the failure is not named: {line}"
    world.run("umount", folder)
    world.run("mount", device, folder)
    still_there(world, directory)
    return line


def object_flipped(world):
    """The rest is served, the object is named, and once it is restored all is served again."""
    store = Stored(world)
    with world.broker(store.directory) as (address, output):
        good = store.change(store.keys[1], flip_one)
        store.check_served(address, lost={"kept"})
        store.check_named(output)
        [error] = store.verify()
        assert f"{store.keys[1]}: kept-0 offsets {RECORDS} to " in error, error
        store.change(store.keys[1], lambda _: good)
        store.check_served(address, lost=())
    assert store.verify() == []
    return error


def object_lost(world, harm):
    """All records of an object are lost, and named; the rest is served."""
    store = Stored(world)
    harm(store, store.keys[1])
    with world.broker(store.directory) as (address, output):
        store.check_served(address, lost={"kept", "other"})
        store.check_named(output)
        [error] = store.verify()
    for topic in ("kept", "other"):
        assert f"{topic}-0 offsets {RECORDS} to {2 * RECORDS}" in error, error
    assert store.keys[1] in error, error
    return error


def object_deleted(world):
    error = object_lost(world, lambda store, key: os.remove(store.path(key)))
    assert "no such object" in error, error
    return error


def object_truncated(world):
    halve = lambda data: data[:len(data) // 2]
    return object_lost(world, lambda store, key: store.change(key, halve))


def manifest_flipped(world):
    """A broker with its WAL does not need it; a rebuild names it, and finds the records even so."""
    store = Stored(world)
    newest = store.flip_newest_manifest()
    [error] = store.verify()
    assert newest in error and "checksum" in error, error
    with world.broker(store.directory) as (address, _):
        store.check_served(address, lost=())
    newest = store.flip_newest_manifest()
    recovered = store.rebuild(world.path("again"))
    assert f"damaged: {newest}: manifest checksum" in recovered, recovered
    assert f"2 partitions, {2 * len(store.keys) * RECORDS} offsets; " in recovered, recovered
    with world.broker(store.directory) as (address, _):
        store.check_served(address, lost=())
    return error


CASES = [unknown_flag, unknown_key, bad_group_count, no_cluster_there, lone_replacement, bad_size, no_io_uring, memlock_too_low, device_in_use,
         device_of_another_system, other_system_in_data_dir, newer_version, slice_of_another_node,
         no_direct_io, opened_twice, port_in_use, replies_not_taken, one_superblock_copy, all_superblock_copies,
         disk_fills_while_formatting, failing_device, object_flipped, object_deleted,
         object_truncated, manifest_flipped, *peer_tls.CASES]


def main():
    binary, parent, *wanted = sys.argv[1:]
    for tool in ("strace", "setpriv", "prlimit", "losetup", "mkfs.ext4", "mkfs.xfs",
                 "xfs_io", "kcat", "openssl"):
        if shutil.which(tool) is None:
            sys.exit(f"badinput: {tool} is missing; see tools/install.sh")
    failed = 0
    cases = [case for case in CASES if not wanted or case.__name__ in wanted]
    for case in cases:
        world = World(binary, parent)
        try:
            print(f"PASS {case.__name__}: {case(world)}", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAIL {case.__name__}: {error}", flush=True)
        finally:
            world.close()
    print(f"bad-input: {len(cases) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
