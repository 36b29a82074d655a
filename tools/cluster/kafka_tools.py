"""Kafka's own command lines for administrators against three brokers: kafka-configs.sh, kafka-reassign-partitions.sh
and kafka-log-dirs.sh, unmodified, each in a Java process of its own. What they say is checked, and what it means to
clients.
"""

import contextlib
import json
import os
import re
import subprocess
import warnings

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from brokers import Cluster, free_ports  # sets the path to other runs' modules
from watched import PATIENCE_SECONDS, Watched, parser_of, run_in_directory

FLAGS = ["--wal-size", "128MiB", "--set", "offload.age.ms=1000", "--set", "log.retention.check.interval.ms=500"]
CONFIGS = "kafka.admin.ConfigCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
TOPIC, COUNT = "administered", 6
NEW = 3
PAYLOAD_SIZE = 3000
# Settings that change nothing here.
UNUSED = ["delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms", "index.interval.bytes",
          "min.compaction.lag.ms", "segment.index.bytes", "segment.jitter.ms"]


def arguments():
    parser = parser_of(__doc__)
    parser.add_argument("--classpath", required=True, help="of Kafka's command lines")
    return parser.parse_args()


class Run(Watched):
    name = "kafka tools"

    def __init__(self, options, directory):
        super().__init__(options, Cluster(options.binary, directory, free_ports(), FLAGS))

    def tool(self, main, *words, bootstrap=None):
        """What it says, and whether it ended well."""
        command = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                   "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", self.options.classpath, main,
                   "--bootstrap-server", bootstrap or self.cluster.bootstrap, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        return done.stdout + done.stderr, done.returncode == 0

    def succeeds(self, main, *words, says=(), **where):
        said, is_done = self.tool(main, *words, **where)
        assert is_done and "Exception" not in said, f"{words}: {said}"
        for what in says:
            assert what in said, f"{words}: {what!r} is not said: {said}"
        return said

    def fails(self, main, *words, says):
        said, is_done = self.tool(main, *words)
        assert not is_done and says in said, f"{words}: {says!r} is not said, or it ended well: {said}"

    def file(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return path

    def begin(self):
        self.cluster.start()
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        self.wait("all know of three", lambda: len(admin.list_topics(timeout=10).brokers) == 3)
        admin.create_topics([NewTopic(TOPIC, COUNT, 3)])[TOPIC].result(30)
        assert self.produce() == {None}

    def produce(self, acks="all"):
        """A record to each partition; what is said of them."""
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "acks": acks, "retries": 0,
                             "log_level": 0})
        said = set()
        for partition in range(COUNT):
            producer.produce(TOPIC, os.urandom(PAYLOAD_SIZE), partition=partition,
                             on_delivery=lambda error, _: said.add(error and error.code()))
        assert producer.flush(PATIENCE_SECONDS) == 0, "no answer"
        return said

    # kafka-configs.sh

    def topic_configs(self, *words, **how):
        return self.succeeds(CONFIGS, "--entity-type", "topics", "--entity-name", TOPIC, *words, **how)

    def alter(self, *words):
        self.topic_configs("--alter", *words, says=[f"Completed updating config for topic {TOPIC}."])

    def configs_hold_everywhere(self):
        """Every broker leads some of the partitions, and all of those refuse."""
        self.wait("every broker leads", lambda: {it.leader for it in self.partitions(TOPIC).values()} == {0, 1, 2})
        self.alter("--add-config", f"max.message.bytes={PAYLOAD_SIZE - 1},retention.ms=3600000")
        self.wait("no broker takes it", lambda: self.produce() == {KafkaError.MSG_SIZE_TOO_LARGE})
        self.topic_configs("--describe", says=[f"max.message.bytes={PAYLOAD_SIZE - 1}", "retention.ms=3600000"])
        self.alter("--delete-config", "max.message.bytes")
        self.wait("all brokers take it", lambda: self.produce() == {None})
        said = self.topic_configs("--describe", says=["retention.ms=3600000"])
        assert "max.message.bytes" not in said, said
        self.alter("--add-config", "min.insync.replicas=4")
        self.wait("none has four in sync", lambda: self.produce() == {KafkaError.NOT_ENOUGH_REPLICAS})
        assert self.produce(acks="1") == {None}
        self.alter("--delete-config", "min.insync.replicas")
        self.wait("all brokers take it", lambda: self.produce() == {None})

    def changes_made_at_once_add_up(self):
        """Each is worked out from what was set before any of them; AlterConfigs then leaves nothing of it."""
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})

        def change(key):
            entry = ConfigEntry(key, "7", incremental_operation=AlterConfigOpType.SET)
            return admin.incremental_alter_configs([ConfigResource(ConfigResource.Type.TOPIC, TOPIC,
                                                                   incremental_configs=[entry])])
        for changed in [change(key) for key in UNUSED]:
            [done] = changed.values()
            done.result(30)
        self.topic_configs("--describe", says=[f"{key}=7" for key in UNUSED])
        whole = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, set_config={"retention.ms": "3600000"})
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            [done] = admin.alter_configs([whole]).values()
        done.result(30)

        def is_alone():
            said = self.topic_configs("--describe", says=["retention.ms=3600000 "])
            return not any(f"{key}=" in said for key in UNUSED)
        self.wait("it is all that is set", is_alone)

    def retention_holds(self):
        """What was kept for an hour is gone."""
        assert self.log_starts() == [0] * COUNT
        self.alter("--add-config", "retention.ms=1")
        self.wait("old records are gone", lambda: min(self.log_starts()) > 0)

    def log_starts(self):
        consumer = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": "none", "log_level": 0})
        try:
            return [consumer.get_watermark_offsets(TopicPartition(TOPIC, index), timeout=10)[0]
                    for index in range(COUNT)]
        finally:
            consumer.close()

    def is_kept(self):
        """By a broker that was killed, in its log."""
        self.cluster.kill(1)
        self.cluster.restart(1)
        self.cluster.await_all()
        self.topic_configs("--describe", says=["retention.ms=1 "], bootstrap=self.cluster.address(1))
        self.alter("--delete-config", "retention.ms")
        self.wait("it is gone", lambda: "retention.ms" not in self.topic_configs("--describe"))

    def what_is_wrong_is_refused(self):
        topic = ("--entity-type", "topics", "--entity-name", TOPIC, "--alter", "--add-config")
        self.fails(CONFIGS, *topic, "no.such.key=1", says="Unknown topic config name: no.such.key")
        self.fails(CONFIGS, *topic, "retention.ms=soon", says="Invalid value soon for configuration retention.ms")
        self.fails(CONFIGS, *topic, "leader.replication.throttled.replicas=*", says="nothing to throttle")
        broker = ("--entity-type", "brokers", "--entity-name", "2", "--alter", "--add-config")
        self.fails(CONFIGS, *broker, "log.retention.ms=5", says="in its configuration file")

    # kafka-reassign-partitions.sh

    def reassign(self, *words, **how):
        return self.succeeds(REASSIGN, *words, **how)

    def rotated(self, by):
        """Each partition's replicas, with another one first."""
        found = {index: partition.replicas for index, partition in self.partitions(TOPIC).items()}
        turned = {index: replicas[by:] + replicas[:by] for index, replicas in found.items()}
        return turned, self.file("moves.json", {"version": 1, "partitions": [
            {"topic": TOPIC, "partition": index, "replicas": replicas} for index, replicas in turned.items()]})

    def partitions_are_reassigned(self):
        topics = self.file("topics.json", {"version": 1, "topics": [{"topic": TOPIC}]})
        said = self.reassign("--generate", "--topics-to-move-json-file", topics, "--broker-list", "0,1,2")
        plans = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert [len(plan["partitions"]) for plan in plans] == [COUNT, COUNT], said
        self.executes(self.file("generated.json", plans[1]))
        turned, path = self.rotated(1)
        self.executes(path)
        self.wait("the first of the new replicas lead", lambda: all(
            partition.leader == turned[index][0] for index, partition in self.partitions(TOPIC).items()))
        self.reassign("--list", says=["No partition reassignments found."])
        assert self.produce() == {None}

    def executes(self, path):
        """Until --verify says that it is done, after which it takes throttles away. The first replica is the one
        that was asked for; the others are in the order of their group, of which the tool makes a note."""
        self.reassign("--execute", "--reassignment-json-file", path,
                      says=["Successfully started partition reassignments for"])
        said = ""

        def is_done():
            nonlocal said
            said = self.reassign("--verify", "--reassignment-json-file", path)
            ended = re.findall(rf"partition {TOPIC}-\d+ is completed|but replica set is (\S+) rather than (\S+)\.", said)
            assert all(sorted(one) == sorted(other) and one[:1] == other[:1] for one, other in ended), said
            return len(ended) == COUNT
        self.wait("all of it is verified", is_done)
        assert "Clearing broker-level throttles" in said and "Clearing topic-level throttles" in said, said

    def a_throttle_is_refused(self):
        _, path = self.rotated(1)
        self.fails(REASSIGN, "--execute", "--reassignment-json-file", path, "--throttle", "1000000",
                   says="nothing to throttle")
        self.reassign("--list", says=["No partition reassignments found."])

    def a_fourth_broker_joins(self):
        """Then not all groups are on the same brokers any more."""
        address = self.cluster.configure_new(NEW)
        added = subprocess.run([self.options.binary, "cluster", "add", f"{NEW}@{address}", "--bootstrap",
                                self.cluster.address(0)], capture_output=True, text=True, timeout=90, check=False)
        assert added.returncode == 0, added.stderr
        self.cluster.restart(NEW, "--join")
        self.wait("it serves", lambda: self.cluster.serves(NEW))
        self.wait("there is a choice of brokers", lambda: len(self.sets_of_brokers()) > 1)
        self.wait("the balancer has done", self.balancer_rests)

    def sets_of_brokers(self):
        return {frozenset(partition.replicas) for partition in self.partitions(TOPIC).values()}

    def moves_to_other_brokers(self):
        """A partition, to brokers that others have their replicas on."""
        here = self.replicas()
        there = next(it.replicas for it in self.partitions(TOPIC).values() if set(it.replicas) != set(here))
        path = self.plan(there)
        self.reassign("--execute", "--reassignment-json-file", path, says=[f"{TOPIC}-0"])
        completed = f"Reassignment of partition {TOPIC}-0 is completed."
        self.wait("it is there", lambda: completed in self.reassign("--verify", "--reassignment-json-file", path))
        assert self.replicas() == there, self.replicas()
        assert self.produce() == {None}
        with self.store_away():
            assert self.produce() == {None}
            self.is_called_off(self.plan(here))
        assert self.replicas() == there, self.replicas()

    def is_called_off(self, path):
        """Nothing can move without the store."""
        self.reassign("--execute", "--reassignment-json-file", path, says=[f"{TOPIC}-0"])
        said = self.reassign("--list", says=["Current partition reassignments:"])
        assert re.search(rf"{TOPIC}-0: replicas: [\d,]+\. adding: \d\. removing: \d\.", said), said
        self.reassign("--verify", "--reassignment-json-file", path,
                      says=[f"Reassignment of partition {TOPIC}-0 is still in progress."])
        self.reassign("--cancel", "--reassignment-json-file", path, says=["Successfully cancelled", f"{TOPIC}-0"])
        self.reassign("--list", says=["No partition reassignments found."])

    def replicas(self):
        return self.partitions(TOPIC)[0].replicas

    def plan(self, replicas):
        return self.file("plan.json", {"version": 1, "partitions": [
            {"topic": TOPIC, "partition": 0, "replicas": replicas}]})

    @contextlib.contextmanager
    def store_away(self):
        """A file is in its place, in which no objects can be."""
        kept = f"{self.cluster.store}.kept"
        os.rename(self.cluster.store, kept)
        with open(self.cluster.store, "w", encoding="utf-8"):
            pass
        try:
            yield
        finally:
            os.remove(self.cluster.store)
            os.rename(kept, self.cluster.store)

    # kafka-log-dirs.sh

    def log_dirs(self):
        said = self.succeeds(LOG_DIRS, "--describe", "--broker-list", "0,1,2", "--topic-list", TOPIC)
        [line] = [line for line in said.splitlines() if line.startswith("{")]
        found = {broker["broker"]: broker["logDirs"] for broker in json.loads(line)["brokers"]}
        assert set(found) == {0, 1, 2}, said
        for node, log_dirs in found.items():
            [log_dir] = log_dirs
            assert log_dir["error"] is None, said
            assert log_dir["logDir"] == os.path.join(self.directory, "data", str(node), "wal"), said
            assert os.path.exists(log_dir["logDir"]), said
            for partition in log_dir["partitions"]:
                assert partition["offsetLag"] == 0 and partition["isFuture"] is False, said
        return {node: log_dirs[0] for node, log_dirs in found.items()}

    def sizes(self, node):
        """By partition."""
        partitions = self.log_dirs()[node]["partitions"]
        sizes = {partition["partition"]: partition["size"] for partition in partitions}
        assert set(sizes) == {f"{TOPIC}-{index}" for index in range(COUNT)}, sizes
        return sizes

    def sizes_are_those_of_the_log(self):
        with self.store_away():
            for _ in range(5):
                assert self.produce() == {None}
            self.wait("all replicas tell the sizes of what was written", self.sizes_are_told)
        self.wait("what is in objects is not counted", lambda: max(self.sizes(0).values()) == 0)

    def sizes_are_told(self):
        """Every partition has five records at least, and no replica has other sizes than another."""
        sizes = [self.sizes(node) for node in range(3)]
        least = 5 * PAYLOAD_SIZE
        return sizes[0] == sizes[1] == sizes[2] and least < min(sizes[0].values()) < 20 * least

    def check_all(self):
        self.check("three brokers serve", self.begin)
        self.check("kafka-configs.sh alters a topic on every broker", self.configs_hold_everywhere)
        self.check("changes that are made at once add up", self.changes_made_at_once_add_up)
        self.check("a topic keeps records as long as it is told", self.retention_holds)
        self.check("a broker that starts anew knows of it", self.is_kept)
        self.check("what is wrong is refused", self.what_is_wrong_is_refused)
        self.check("kafka-reassign-partitions.sh moves partitions", self.partitions_are_reassigned)
        self.check("it throttles nothing", self.a_throttle_is_refused)
        self.check("kafka-log-dirs.sh tells the sizes of partitions", self.sizes_are_those_of_the_log)
        self.check("a fourth broker joins", self.a_fourth_broker_joins)
        self.check("kafka-reassign-partitions.sh has it take part, and calls moves off", self.moves_to_other_brokers)
        self.check("bucket and manifests agree", self.bucket)


run_in_directory(Run, arguments(), "kafka-tools")
