"""What is done to a broker in a namespace, and how it ends: the same for every run that does it."""

import signal

from namespaces import HEARS_NOBODY, REACHES_NOBODY


class Faults:
    """By name: how it begins and how it ends, each for a node."""

    SLOW_MS = 100

    def __init__(self, cluster, network, disks=None):
        def cut(way):
            return lambda node: network.cut(node, way)

        def send(what):
            return lambda node: cluster.signal(node, what)

        self.table = {
            "kill": (cluster.kill, cluster.restart),
            "stop": (cluster.terminate, cluster.restart),
            "pause": (send(signal.SIGSTOP), send(signal.SIGCONT)),
            # From the other brokers; clients reach it.
            "cut": (network.cut, network.heal),
            "deaf": (cut(HEARS_NOBODY), network.heal),
            "mute": (cut(REACHES_NOBODY), network.heal),
            "cut-from-all": (network.cut_from_all, network.heal),
        }
        if disks:
            self.table["slow-disk"] = (lambda node: disks[node].delay(self.SLOW_MS),
                                       lambda node: disks[node].heal())
            self.table["failing-disk"] = (self._fail, self._replace)
        self._cluster, self._disks = cluster, disks

    def _fail(self, node):
        """One failed write is final: the broker ends by itself."""
        self._disks[node].fail()
        self._cluster.await_end(node)

    def _replace(self, node):
        self._disks[node].heal()
        self._cluster.restart(node)

    def begin(self, name, node):
        self.table[name][0](node)

    def end(self, name, node):
        self.table[name][1](node)
