"""Three brokers, and what is done to them; on loopback, those of `tailrace dev --nodes 3`."""

import glob
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from urllib.error import URLError
from urllib.request import urlopen

for folder in ("../crash", "../outage"):
    sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), folder))

from certificates import Authority, with_settings
from waiting import wait_until

READY = re.compile(r"node (\d) pid (\d+) ready on ")
START_SECONDS_MAX = 60
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def free_ports():
    """Below what the kernel gives to clients, three in a row each, and those of the brokers."""
    while True:
        listen = random.randrange(20_000, 28_000, 10)
        wanted = [base + node for base in (listen, listen + 5, listen + 1000) for node in range(3)]
        sockets = []
        try:
            for port in wanted:
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return listen, listen + 5
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()


class Brokers:
    """Three brokers, each a process that its own configuration file describes. Where they are and how
    they are started at first is a subclass's."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.pids = {}
        self._own = {}  # by node: the process, where it is a child of this one

    @property
    def bootstrap(self):
        return ",".join(map(self.address, range(3)))

    def address(self, node):
        raise NotImplementedError

    def admin(self, node):
        raise NotImplementedError

    def log_path(self, node):
        raise NotImplementedError

    @property
    def store(self):
        return os.path.join(self.directory, "data", "objects")

    def config(self, node):
        return os.path.join(self.directory, "data", f"{node}.toml")

    def signal(self, node, what):
        os.kill(self.pids[node], what)

    def kill(self, node):
        self.signal(node, signal.SIGKILL)
        self.await_end(node)

    def terminate(self, node):
        self.signal(node, signal.SIGTERM)
        self.await_end(node)

    def await_end(self, node):
        pid = self.pids.pop(node)
        if process := self._own.pop(node, None):
            process.wait(START_SECONDS_MAX)
        wait_until(f"node {node} ends", lambda: not is_running(pid), START_SECONDS_MAX)

    def restart(self, node, *flags):
        """As an operator would: the broker by its configuration file."""
        self.spawn(node, [self.binary, "broker", "--config", self.config(node), *flags])

    def restart_in(self, node, offset):
        """With a wall clock that is that far off, such as +30m; the monotonic one is as it is."""
        library, = glob.glob(FAKETIME)
        clock = {"LD_PRELOAD": library, "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.spawn(node, [self.binary, "broker", "--config", self.config(node)], env={**os.environ, **clock})

    def spawn(self, node, command, **how):
        with open(self.log_path(node), "a", encoding="utf-8") as log:
            self._own[node] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **how)
        self.pids[node] = self._own[node].pid

    def secure(self, node, authority):
        """From its next start on it speaks TLS to the other brokers."""
        self.configure(node, authority.settings(node))

    def configure(self, node, settings):
        """Adds keys to its configuration file, from its next start on."""
        with open(self.config(node), encoding="utf-8") as file:
            text = with_settings(file.read(), settings)
        with open(self.config(node), "w", encoding="utf-8") as file:
            file.write(text)

    def turn_to_tls(self):
        """All at once."""
        authority = Authority(os.path.join(self.directory, "authority"), self.cluster_id)
        for node in range(3):
            self.terminate(node)
        for node in range(3):
            self.secure(node, authority)
            self.restart(node)
        self.await_all()

    @property
    def cluster_id(self):
        with open(self.config(0), encoding="utf-8") as file:
            return re.search(r'^cluster-id = "(.*)"', file.read(), re.MULTILINE)[1]

    def serves(self, node):
        """It answers, whatever it is asked: /healthz says that its groups have leaders."""
        try:
            with urlopen(f"http://{self.admin(node)}/healthz", timeout=1) as answer:
                return answer.read().strip() == b"ok"
        except (URLError, OSError):
            return False

    def metric(self, node, name):
        """The sum over the broker's shards; None if it does not answer."""
        try:
            with urlopen(f"http://{self.admin(node)}/metrics", timeout=1) as answer:
                lines = answer.read().decode().splitlines()
        except (URLError, OSError):
            return None
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))

    def swap_data(self, node, kept):
        """Puts the directory that was kept under a name in the place of the node's, and keeps that one."""
        own = os.path.join(self.directory, "data", str(node))
        other = f"{own}.{kept}"
        if os.path.exists(other):
            os.rename(other, f"{own}.swap")
        os.rename(own, other)
        if os.path.exists(f"{own}.swap"):
            os.rename(f"{own}.swap", own)

    def has_its_place(self, node):
        """A broker that began with an empty disk got the log, and votes in all groups."""
        learns = self.metric(node, "tailrace_raft_learner_groups")
        return bool(self.metric(node, "tailrace_raft_catch_up_bytes_total")) and learns == 0

    def await_all(self):
        wait_until("all three serve", lambda: len(self.pids) == 3 and all(map(self.serves, range(3))),
                   START_SECONDS_MAX)

    def stop(self):
        """Those that are children of this process, each handing over first."""
        for process in self._own.values():
            process.terminate()
        for process in self._own.values():
            process.wait(START_SECONDS_MAX)
        self._own, self.pids = {}, {}

    def clean_up(self):
        for process in self._own.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for pid in self.pids.values():
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)

    def log(self):
        """What all three printed."""
        paths = sorted({self.log_path(node) for node in range(3)})
        return "".join(open(path, encoding="utf-8").read() for path in paths)

    def show_log(self):
        print("\n".join(self.log().splitlines()[-60:]), file=sys.stderr)


class Cluster(Brokers):
    """On loopback: the parent process starts the brokers; one that was killed is started anew by its
    own file."""

    def __init__(self, binary, directory, ports, flags):
        super().__init__(binary, directory)
        self._listen, self._admin = ports
        self._flags = flags
        self.parent = None

    def address(self, node):
        return f"127.0.0.1:{self._listen + node}"

    def admin(self, node):
        return f"127.0.0.1:{self._admin + node}"

    def log_path(self, node):
        return os.path.join(self.directory, "cluster.log")

    def start(self):
        command = [self.binary, "dev", "--nodes", "3", "--data-dir", os.path.join(self.directory, "data"),
                   "--listen", self.address(0), "--admin", self.admin(0), *self._flags]
        self.pids = {}
        self.parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self._listen_to, args=(self.parent,), daemon=True).start()
        wait_until("three brokers are ready", lambda: len(self.pids) == 3, START_SECONDS_MAX)

    def configure_new(self, node):
        """Writes the file of one that is to join: that of the third, with what is another's; it names itself,
        too. Returns where it hears the others."""
        text = read(self.config(2))
        last = int(re.search(r'"2@127\.0\.0\.1:(\d+)"', text)[1])
        first = int(re.search(r'"1@127\.0\.0\.1:(\d+)"', text)[1])
        peer_address = f"127.0.0.1:{2 * last - first}"
        nodes = re.search(r"^nodes = \[(.*)\]", text, re.MULTILINE)[1]
        for key, value in {
                "node-id": str(node), "listen": f'"{self.address(node)}"', "admin": f'"{self.admin(node)}"',
                "data-dir": f'"{self.directory}/data/{node}"',
                "nodes": f'[{nodes}, "{node}@{peer_address}"]'}.items():
            text = replace_line(text, key, value)
        with open(self.config(node), "w", encoding="utf-8") as file:
            file.write(text)
        return peer_address

    def _listen_to(self, process):
        with open(self.log_path(0), "a", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if found := READY.match(line):
                    self.pids[int(found[1])] = int(found[2])

    def stop(self):
        """By the parent alone, and those that it did not start."""
        self.parent.terminate()
        super().stop()
        self.parent.wait(START_SECONDS_MAX)
        return self.parent.returncode

    def clean_up(self):
        if self.parent and self.parent.poll() is None:
            self.parent.kill()
            self.parent.wait()
        super().clean_up()


def is_running(pid):
    """A process that ended and was not waited for is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def replace_line(text, key, value):
    lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"
