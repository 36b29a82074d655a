"""What is done to a broker in a namespace, and how it ends: the same for every run that does it."""

import signal

from namespaces import HEARS_NOBODY, REACHES_NOBODY


class Faults:
    """By name: how it begins and how it ends, each for a node."""

    def __init__(self, cluster, network):
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

    def begin(self, name, node):
        self.table[name][0](node)

    def end(self, name, node):
        self.table[name][1](node)
