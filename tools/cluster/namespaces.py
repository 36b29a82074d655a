"""Three brokers, each in a network namespace of its own, on one bridge with the clients.

The run itself must be alone in a network namespace (`run_alone` of setup.sh): names and addresses are
then its own, and all of it is gone with its last process, however that ends. What is cut off is
dropped in silence, as by a cable that was pulled; nobody is told.
"""

import os
import subprocess
import uuid

from brokers import Brokers

CLIENTS = "10.77.0.1"
LISTEN, PEER, ADMIN = 9092, 10092, 9644
BOTH_WAYS, HEARS_NOBODY, REACHES_NOBODY = ("-A INPUT -s", "-A OUTPUT -d"), ("-A INPUT -s",), ("-A OUTPUT -d",)


def host(node):
    return f"10.77.0.{10 + node}"


def run(*command, text=None):
    subprocess.run(command, check=True, capture_output=True, input=text, text=True)


class Network:
    """The bridge, and who hears whom."""

    def __init__(self):
        found = os.listdir("/proc/sys/net/ipv4/neigh")
        assert set(found) <= {"default", "lo"}, f"not alone in a network namespace: {sorted(found)}"
        os.makedirs("/run/netns", exist_ok=True)
        run("mount", "-t", "tmpfs", "none", "/run/netns")
        run("ip", "-batch", "-", text=f"link set lo up\nlink add hub type bridge\n"
            f"addr add {CLIENTS}/24 dev hub\nlink set hub up\n")
        for node in range(3):
            run("ip", "netns", "add", f"node{node}")
            run("ip", "-batch", "-", text=f"link add veth{node} type veth peer name eth0 netns node{node}\n"
                f"link set veth{node} master hub up\n")
            run("ip", "-netns", f"node{node}", "-batch", "-", text="link set lo up\nlink set eth0 up\n"
                f"addr add {host(node)}/24 dev eth0\n")

    def enter(self, node):
        """What is put before a command that is to run where that broker runs."""
        return ["nsenter", f"--net=/run/netns/node{node}"]

    def cut(self, node, way=BOTH_WAYS):
        """From the other brokers; its clients hear it and are heard."""
        self._rules(node, [f"{rule} {host(other)}" for rule in way for other in range(3) if other != node])

    def cut_from_all(self, node):
        self._rules(node, [f"{rule} 10.77.0.0/24" for rule in BOTH_WAYS])

    def heal(self, node):
        self._rules(node, [])

    def _rules(self, node, rules):
        """In place of those that it has, all at once."""
        lines = ["*filter", *[f"{rule} -j DROP" for rule in rules], "COMMIT", ""]
        run(*self.enter(node), "iptables-restore", text="\n".join(lines))


class NamespacedBrokers(Brokers):
    """Each has a directory of its own under `data`, a log and one core; the store is a folder."""

    def __init__(self, binary, directory, network, wal_size, settings):
        super().__init__(binary, directory)
        self._network = network
        self._cluster_id = uuid.uuid4()
        self._wal_size, self._settings = wal_size, settings
        os.makedirs(self.store, exist_ok=True)

    def address(self, node):
        return f"{host(node)}:{LISTEN}"

    def admin(self, node):
        return f"{host(node)}:{ADMIN}"

    def log_path(self, node):
        return os.path.join(self.directory, f"{node}.log")

    def data(self, node):
        return os.path.join(self.directory, "data", str(node))

    def start(self):
        for node in range(3):
            self._write_config(node)
            self._start(node, "--new-cluster")
        self.await_all()

    def restart(self, node):
        self._start(node)

    def _start(self, node, *flags):
        cores = sorted(os.sched_getaffinity(0))
        # A shard takes the first core that it may have; these are as `tailrace dev --nodes` gives them.
        cores = ",".join(map(str, cores[node % len(cores):]))
        self.spawn(node, [*self._network.enter(node), "taskset", "--cpu-list", cores, self.binary, "broker",
                          "--config", self.config(node), *flags])

    def _write_config(self, node):
        peers = ", ".join(f'"{each}@{host(each)}:{PEER}"' for each in range(3))
        lines = [f'data-dir = "{self.data(node)}"', f'listen = "{self.address(node)}"',
                 f'admin = "{self.admin(node)}"', f'wal-size = "{self._wal_size}"', "cores = 1",
                 "busy-poll-us = 0",  # Three brokers share the cores.
                 f'object-store = "file://{self.store}"', f"node-id = {node}",
                 f'cluster-id = "{self._cluster_id}"', f"nodes = [{peers}]", "[settings]",
                 *[f'"{key}" = {value}' for key, value in self._settings.items()], ""]
        with open(self.config(node), "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
