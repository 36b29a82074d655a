"""Load on a core of its own: `tailrace bench`, and Kafka's own performance tools."""

import json
import os
import re
import statistics
import subprocess

from systems import BROKER_CORE, LOAD_CORE, on_core

QUANTILES = ["p50", "p99", "p99_9"]
PERFORMANCE = re.compile(r"^(\d+) records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), ([\d.]+) ms avg latency, "
                         r"([\d.]+) ms max latency, (\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99.9th")
END_TO_END = re.compile(r"Percentiles: 50th = (\d+), 99th = (\d+), 99.9th = (\d+)")


def medians(rounds):
    """Of each quantile, over the latencies of some rounds."""
    return {quantile: statistics.median(each[quantile] for each in rounds) for quantile in QUANTILES}


def ratios(latency, over):
    return {quantile: latency[quantile] / over[quantile] for quantile in QUANTILES}


def in_words(quantiles, digits=0):
    return ", ".join(f"{quantile} {value:.{digits}f}" for quantile, value in quantiles.items())


def bench(binary, directory, *words, core=LOAD_CORE):
    """The report of `tailrace bench`; a core of load spins, so that its wake-ups are in no latency."""
    path = os.path.join(directory, "bench.json")
    with on_core(core):
        subprocess.run([binary, "bench", *words, "--json", path], check=True, stdout=subprocess.DEVNULL)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def produce(binary, directory, address, topic, *words):
    """A broker that cannot keep up leaves requests unanswered; their latencies are counted up to the end."""
    found = bench(binary, directory, "produce", "--bootstrap", address, "--topic", topic, *words)
    assert found["errors"] == 0, found["first_error"]
    return found


def fio(direction, path, *words):
    """What fio says of sequential O_DIRECT I/O by io_uring on a file, from the broker's core."""
    job = ["fio", "--name=bare", f"--filename={path}", f"--rw={direction}", "--direct=1", "--ioengine=io_uring",
           "--output-format=json", f"--cpus_allowed={BROKER_CORE}", *words]
    found = json.loads(subprocess.run(job, check=True, capture_output=True, text=True).stdout)
    return found["jobs"][0][direction]


class JavaTools:
    def __init__(self, classpath):
        self._classpath = classpath

    def start(self, main, *words):
        with on_core(LOAD_CORE):
            return subprocess.Popen(
                ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", self._classpath,
                 f"org.apache.kafka.tools.{main}", *words], stdout=subprocess.PIPE, text=True)

    def producer_perf_test(self, address, topic, producers, records):
        """kafka-producer-perf-test with the producer's defaults (acks=all, idempotent), as fast as it goes; the sum
        of all producers."""
        words = ["--topic", topic, "--num-records", str(records // producers), "--record-size", "1024",
                 "--throughput", "-1", "--bootstrap-server", address]
        running = [self.start("ProducerPerformance", *words) for _ in range(producers)]
        found = [last_match(PERFORMANCE, process.communicate()[0]) for process in running]
        return {"producers": producers, "records": sum(int(each[1]) for each in found),
                "records_per_second": sum(float(each[2]) for each in found),
                "megabytes_per_second": sum(float(each[3]) for each in found) * 2**20 / 1e6,
                "p99_ms": max(int(each[8]) for each in found)}

    def end_to_end_latency(self, address, topic, messages):
        """kafka-e2e-latency: one record at a time, written and read again."""
        output = self.start("EndToEndLatency", address, topic, str(messages), "all", "1024").communicate()[0]
        found = last_match(END_TO_END, output)
        return {"p50_ms": int(found[1]), "p99_ms": int(found[2]), "p99_9_ms": int(found[3]),
                "mean_ms": float(re.search(r"Avg latency: ([\d.]+) ms", output)[1])}


def last_match(pattern, output):
    matches = [found for line in output.splitlines() if (found := pattern.search(line))]
    assert matches, f"the tool did not come to its end: {output[-500:]}"
    return matches[-1]
