"""Three brokers in network namespaces, under load and a random schedule of faults.

A broker is killed, paused, cut off from the others (both ways or one) or from everybody, or its
data directory is full when it starts; the store's file system is full; often two of these at once,
on two brokers. What that proves of full disks: a broker needs no space beside its WAL, which is
allocated when it is made; and a store without space is one that is away, up to a WAL that is full.
After each step the load must go on. At the end, read under each broker as leader, the log is the
same, with all that was acknowledged or read in it, once and in order. The verdict is by contents and
counts; times only say how long a thing is waited for.
"""

import argparse
import os
import subprocess
import time

from brokers import is_running
from faults import Faults
from histories import faults_of_repeats
from images import Image
from namespaces import NamespacedBrokers, Network
from verdict import read_all
from watched import LONELY, PLACES, REQUEST_TIMEOUT_MS, Watched, run_in_directory
from wire import NONE, produce

MIB = 1 << 20
WAL_BYTES = 128 * MIB
SETTINGS = {"offload.age.ms": 1000, "offload.bytes": 2 * MIB, "num.partitions": 3}
SECONDS_MIN, SECONDS_MAX = 0.5, 5
TWO_AT_ONCE, HITS_LEADER = 0.35, 0.5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--seconds", type=float, default=60, help="of faults at random")
    parser.add_argument("--request-timeout-ms", type=int, default=REQUEST_TIMEOUT_MS, help="of the clients")
    return parser.parse_args()


class Chaos(Watched):
    name = "chaos"

    def __init__(self, options, directory):
        self.network = Network()
        super().__init__(options, NamespacedBrokers(options.binary, directory, self.network, WAL_BYTES, SETTINGS))
        self.disks = [self.image(str(node), WAL_BYTES + 24 * MIB) for node in range(3)]
        self.store = self.image("objects", 1024 * MIB)
        self.faults = Faults(self.cluster, self.network)
        self.faults.table["data-full"] = (self.start_without_space, lambda node: self.disks[node].free())
        self.faults.table["store-full"] = (lambda _: self.store.fill(), lambda _: self.store.free())
        del self.faults.table["stop"]  # cluster.py's
        self.deck, self.counts = [], {name: 0 for name in self.faults.table}

    def image(self, name, size):
        return Image(os.path.join(self.directory, f"{name}.ext4"), size,
                     os.path.join(self.directory, "data", name))

    def start_without_space(self, node):
        self.disks[node].fill()
        self.cluster.kill(node)
        self.cluster.restart(node)

    # Faults at random

    def draw(self):
        """Every fault has its turn before one has its next."""
        if not self.deck:
            self.deck = sorted(self.faults.table)
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def step(self, started):
        leader = self.leader()
        first = leader if self.rng.random() < HITS_LEADER else self.rng.choice([0, 1, 2])
        seconds = self.rng.uniform(SECONDS_MIN, SECONDS_MAX)
        plan = [(self.draw(), first, 0, seconds)]
        if self.rng.random() < TWO_AT_ONCE:
            begins = self.rng.uniform(0, seconds)
            second = (first + self.rng.choice([1, 2])) % 3
            plan.append((self.draw(), second, begins, begins + self.rng.uniform(SECONDS_MIN, SECONDS_MAX)))
        told = "; ".join(f"{name} {node} {begin:.1f}-{end:.1f}" for name, node, begin, end in plan)
        print(f"  {time.monotonic() - started:5.1f} s, node {leader} leads: {told}", flush=True)
        self.play(plan)
        self.load_goes_on()
        assert all(map(is_running, self.cluster.pids.values())), "a broker ended by itself"
        self.cluster.await_all()

    def play(self, plan):
        events = [(at, how, name, node) for name, node, begin, end in plan
                  for at, how in ((begin, self.faults.begin), (end, self.faults.end))]
        began = time.monotonic()
        for at, how, name, node in sorted(events, key=lambda event: event[0]):
            time.sleep(max(0, began + at - time.monotonic()))
            how(name, node)
        for name, *_ in plan:
            self.counts[name] += 1

    def faults_at_random(self):
        started = time.monotonic()
        while time.monotonic() < started + self.options.seconds:
            self.step(started)
        print("  " + ", ".join(f"{count} {name}" for name, count in self.counts.items()))

    # What is not left to chance

    def leader_is_alone(self):
        """It acknowledges nothing; what it was sent is sent again, and is there once."""
        node = self.leader(LONELY)
        address = self.cluster.address(node)
        self.network.cut(node)
        codes, until = [], time.monotonic() + 3
        while time.monotonic() < until:
            codes.append(self.say(address, len(codes), 0.5))
            time.sleep(0.05)
        assert codes and NONE not in codes, f"acknowledged by a leader without a majority: {codes}"
        # A consumer whose only connection is to this one waits until it is healed.
        self.acknowledgements_go_on()
        self.network.heal(node)
        self.load_goes_on()
        for number in range(len(codes)):
            self.wait("an answer", lambda: self.say(self.cluster.address(self.leader(LONELY)), number, 5) == NONE)
        found = [sequence for _, _, sequence, _ in read_all(self.cluster.bootstrap, [(LONELY, 0)])[LONELY, 0]]
        faults = faults_of_repeats(range(len(codes)), found)
        assert not faults, faults[:5]
        print(f"  node {node} answered " + ", ".join(f"{codes.count(each)} times {each}" for each in set(codes)))

    @staticmethod
    def say(address, number, seconds):
        """One record of a producer of its own; None if there was no answer."""
        try:
            return produce(address, LONELY, (1 << 40) + number, 0, f"lonely:{number}:".encode(), seconds)
        except OSError:
            return None

    def store_is_full_until_the_wal_is(self):
        before = self.refused()
        self.store.fill()
        for _ in range(10):
            load = [self.options.binary, "bench", "produce", "--bootstrap", self.cluster.address(self.leader()),
                    "--topic", "bulk", "--partitions", "3", "--connections", "3", "--rate", "10000",
                    "--batch-records", "100", "--seconds", "3", "--warmup", "0", "--sleep"]
            # Refused records are what this is about, and the program's reason to fail.
            subprocess.run(load, check=False, capture_output=True)
            if self.refused() > before:
                break
        assert self.refused() > before, "the WAL was never full"
        self.store.free()
        self.load_goes_on()
        self.cluster.await_all()

    def refused(self):
        return sum(self.cluster.metric(node, "tailrace_produce_refused_total") or 0 for node in range(3))

    def copies(self):
        """Leadership goes around until each has had it of every partition: by kills, since one that
        stops chooses who is next."""
        found = {node: {} for node in range(3)}
        for _ in range(40):
            leaders = self.leaders()
            new = [(place, node) for place, node in leaders.items() if place not in found[node]]
            if new:
                logs = read_all(self.cluster.bootstrap, [place for place, _ in new])
                for place, node in new:
                    found[node][place] = logs[place]
            missing = [place for place in PLACES if any(place not in found[node] for node in range(3))]
            if not missing:
                return found
            node = leaders[missing[0]]
            self.cluster.kill(node)
            self.leaders()
            self.cluster.restart(node)
            self.cluster.await_all()
        raise AssertionError(f"not every broker led each partition: {({node: sorted(logs) for node, logs in found.items()})}")

    def check_all(self):
        self.check("three brokers serve in namespaces, and take a load", self.begin)
        self.check("a leader without a majority acknowledges nothing", self.leader_is_alone)
        self.check("the load goes on after faults at random", self.faults_at_random)
        self.check("a full store fills the WAL, and all goes on", self.store_is_full_until_the_wal_is)
        self.check("under each leader, nothing is lost, doubled or moved", self.verdict)
        self.check("bucket and manifests agree", self.bucket)
        self.check("all stop", self.cluster.stop)

    def clean_up(self):
        super().clean_up()
        for image in [*self.disks, self.store]:
            image.unmount()


def main():
    options = arguments()
    print(f"seed {options.seed}", flush=True)
    run_in_directory(Chaos, options, "chaos")


main()
