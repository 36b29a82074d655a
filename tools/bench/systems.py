"""Brokers to compare: each on one core, with a data directory of its own on one file system."""

import contextlib
import os
import re
import sys
from urllib.request import urlopen

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, "../crash"))

from cores import broker_core
from process import Broker

BROKER_CORE = int(os.environ.get("BROKER_CORE") or broker_core(os.environ["BENCH_DIR"]))
LOAD_CORE = 1 if BROKER_CORE == 0 else 0
KAFKA = os.path.join(HERE, "../clients/kafka-reference.sh")
# What each is called, and what it is told beside its defaults. kafka-reference.sh is made for other runs, which
# want more partitions than one.
SYSTEMS = {
    "tailrace": [],
    "kafka-durable": ["--set", "num.partitions=1", "--set", "log.flush.interval.messages=1"],
    "kafka": ["--set", "num.partitions=1"],
}


@contextlib.contextmanager
def on_core(core):
    """Processes that are started meanwhile stay on it."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class System(Broker):
    """One of SYSTEMS, or Tailrace with other flags."""

    def __init__(self, binary, directory, name, flags=()):
        program = KAFKA if name.startswith("kafka") else binary
        super().__init__(program, directory, [*SYSTEMS[name], *flags])
        self.name = name

    def start(self, fail_point=None):
        with on_core(BROKER_CORE):
            super().start(fail_point)
        self.wait_ready()

    def signal(self, what):
        self._process.send_signal(what)

    @property
    def pid(self):
        return self._process.pid

    def command(self):
        return " ".join(self._command)

    def cpu_seconds(self):
        """Of all its threads, the kernel's part included."""
        with open(f"/proc/{self.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"^VmRSS:\s+(\d+) kB", file.read(), re.MULTILINE)[1]) * 1024

    def metric(self, name):
        """The sum over its shards; of Tailrace only."""
        with urlopen(f"http://{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))

    def settings(self):
        """Every setting that it tells of itself, by Kafka's own API."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        node = next(iter(admin.list_topics(timeout=30).brokers))
        resource = ConfigResource(ResourceType.BROKER, str(node))
        entries = admin.describe_configs([resource])[resource].result(30)
        return {name: entry.value for name, entry in sorted(entries.items())}
