"""How fast consumers read what is only in objects, and what producers at the tail notice of it.

A topic is filled so that nearly all of it is in objects only. Then, in turns: a bare reader gets the
same objects by ranges of 1 MiB, several at a time; consumers (`tailrace bench fetch`) read the topic
from its beginning; and `tailrace bench produce` measures the tail alone and with consumers at work.
The broker's cache is smaller than the topic, and files are dropped from the page cache before each
turn, so that each of them reads from the store. The S3 server is on the same two cores as all that
use it; `--delay-ms` has it answer as late as one does that is elsewhere.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import parse_qs, urlparse

from outage import Proxy, Run  # sets the path to the crash run's modules

from process import Broker

CHUNK = 1 << 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--store", required=True, help="file:///... or s3://...")
    parser.add_argument("--control", type=int, help="of the proxy before an S3 server")
    parser.add_argument("--presign", help="program that makes URLs of keys")
    parser.add_argument("--delay-ms", type=int, default=0, help="of each answer of an S3 server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--concurrency", type=int, default=8, help="requests of the bare reader")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of produce")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--pace", type=int, default=100, help="MB/s of consumers beside producers")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.pace < 1:
        parser.error("--pace: consumers read at least 1 MB/s; as fast as they can is measured, too")
    return options


class Folder:
    def __init__(self, url):
        self.root = url.removeprefix("file://")

    def drop_cache(self, objects):
        # They were flushed when they were stored, so they can be dropped.
        for key, _ in objects:
            file = os.open(os.path.join(self.root, key), os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)

    def get(self, key, start, size):
        file = os.open(os.path.join(self.root, key), os.O_RDONLY)
        try:
            return len(os.pread(file, size, start))
        finally:
            os.close(file)


class Bucket:
    def __init__(self, url, presign):
        parts = urlparse(url)
        self.endpoint = parse_qs(parts.query)["endpoint"][0]
        self.bucket, self.prefix, self.presign = parts.netloc, parts.path.strip("/"), presign
        self.urls = {}

    def drop_cache(self, objects):
        keys = "".join(f"{self.prefix}/{key}\n" for key, _ in objects)
        urls = subprocess.run([*self.presign.split(), self.endpoint, self.bucket], input=keys,
                              check=True, capture_output=True, text=True).stdout.split()
        self.urls = {key: url for (key, _), url in zip(objects, urls, strict=True)}

    def get(self, key, start, size):
        url = urlparse(self.urls[key])
        connection = http.client.HTTPConnection(url.hostname, url.port)
        connection.request("GET", f"{url.path}?{url.query}", headers={
            "Range": f"bytes={start}-{start + size - 1}"})
        answer = connection.getresponse()
        assert answer.status == 206, answer.read()
        return len(answer.read())


def bare(store, objects, options):
    """Megabytes a second."""
    pieces = [(key, start, min(CHUNK, size - start)) for key, size in objects
              for start in range(0, size, CHUNK)]
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.concurrency) as pool:
        read = sum(pool.map(lambda piece: store.get(*piece), pieces))
    assert read == sum(size for *_, size in pieces)
    return read / 1e6 / (time.monotonic() - started)


class CatchUp(Run):
    def __init__(self, options, directory):
        self.broker = Broker(options.binary, directory, [
            "--cores", "1", "--wal-size", "256MiB", "--object-store", options.store,
            "--set", "object.cache.bytes=134217728"])
        self.options, self.directory = options, directory
        self.senders, self.readers = [], []
        self.listed = []
        bucket = options.store.startswith("s3://")
        self.store = Bucket(options.store, options.presign) if bucket else Folder(options.store)
        self.proxy = Proxy(options.control) if bucket else None
        cores = os.sched_getaffinity(0)
        self.cores, self.core = ",".join(map(str, sorted(cores))), max(cores)

    def objects(self):
        """Those that consumers read: a store takes longer for a range of a larger object."""
        listing = subprocess.run([self.options.binary, "object", "ls", "--object-store",
                                  self.options.store, "--topic", "old"], check=True,
                                 capture_output=True, text=True)
        lines = [line.split() for line in listing.stdout.splitlines()]
        return [(key, int(size)) for kind, size, key, *_ in lines if kind == "live"]

    def drop_cache(self):
        """Looks which objects there are now, too: they may be merged at any time."""
        self.listed = self.objects()
        self.store.drop_cache(self.listed)

    def bare(self):
        return bare(self.store, self.listed, self.options)

    def bench(self, first, *words):
        path = os.path.join(self.directory, f"{words[0]}.json")
        subprocess.run([*first, self.options.binary, "bench", *words, "--bootstrap", self.broker.address,
                        "--json", path], check=True, stdout=subprocess.DEVNULL)
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def fill(self):
        """In bursts that offload keeps up with."""
        size = self.options.megabytes * 1_000_000
        while self.metric("tailrace_produce_bytes_total") < size:
            self.bench([], "produce", "--topic", "old", "--partitions", str(self.options.partitions),
                       "--connections", "4", "--rate", "30000", "--batch-records", "100",
                       "--seconds", "2", "--warmup", "0", "--sleep", "--cores", "1")
            self.wait("the burst is offloaded", self.is_caught_up)

    def fetch(self, *more):
        before = self.metric("tailrace_fetch_object_bytes_total")
        # The core is the producer's: its latency is not to be what the two do to each other.
        first = ["nice", "-n", "19"]
        report = self.bench(first, "fetch", "--topic", "old", *more)
        remote = (self.metric("tailrace_fetch_object_bytes_total") - before) / report["bytes"]
        return report["megabytes_per_second"], remote

    def produce(self):
        first = ["taskset", "-c", self.cores, "chrt", "--fifo", "10"]
        report = self.bench(first, "produce", "--topic", "tail", "--rate", str(self.options.rate),
                            "--seconds", str(self.options.seconds), "--warmup", "1",
                            "--cores", "1", "--sleep")
        assert report["errors"] == 0, report["first_error"]
        return report["latency_us"]

    def produce_beside(self, work):
        """While others do that again and again."""
        stopping = threading.Event()

        def repeat():
            while not stopping.is_set():
                self.drop_cache()
                work()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            other = pool.submit(repeat)
            try:
                found = self.produce()
            finally:
                stopping.set()
            # Beside what has failed nothing was measured.
            other.result()
            return found

    def round(self, number):
        self.drop_cache()
        reader = self.bare()
        self.drop_cache()
        consumers, remote = self.fetch()
        found = {"bare": reader, "consumers": consumers}
        turns = {
            "alone": self.produce,
            # What the device and the cores alone make of it: no broker is in this.
            "bare_reader": lambda: self.produce_beside(self.bare),
            "paced": lambda: self.produce_beside(lambda: self.fetch("--rate", str(self.options.pace))),
            "unpaced": lambda: self.produce_beside(self.fetch),
        }
        # Each of them comes first in some round.
        names = [*turns][number % len(turns):] + [*turns][:number % len(turns)]
        found |= {name: turns[name]() for name in names}
        print(f"round {number}: bare reader {reader:.0f} MB/s, consumers {consumers:.0f} MB/s "
              f"({remote:.0%} from objects); tail p99 alone {found['alone']['p99']:.0f} us, beside "
              f"the bare reader {found['bare_reader']['p99']:.0f}, consumers at "
              f"{self.options.pace} MB/s {found['paced']['p99']:.0f}, consumers as fast as they can "
              f"{found['unpaced']['p99']:.0f}", flush=True)
        return found

    def run(self):
        try:
            self.broker.start()
            self.broker.wait_ready()
            # From here on this process and what it starts stay off the broker's core, which nobody
            # shares with it where the store and the consumers are other machines.
            os.sched_setaffinity(0, {self.core})
            self.fill()
            self.produce()
            if self.options.delay_ms:
                self.proxy.tell(f"fault delay seconds={self.options.delay_ms / 1000}")
            rounds = [self.round(number + 1) for number in range(self.options.rounds)]
            self.broker.stop()
            return rounds
        finally:
            self.broker.clean_up()


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="catch-up.", dir=os.environ.get("OUTAGE_DIR"))
    if options.store == "file":
        options.store = f"file://{directory}/objects"
        os.mkdir(f"{directory}/objects")
    try:
        rounds = CatchUp(options, directory).run()
    finally:
        shutil.rmtree(directory)
    rate = statistics.median(each["consumers"] / each["bare"] for each in rounds)
    # The machine's own stalls are in some of the turns: medians first, and then their ratio.
    p99 = {turn: statistics.median(each[turn]["p99"] for each in rounds)
           for turn in ("alone", "bare_reader", "paced", "unpaced")}
    tail = {turn: found / p99["alone"] for turn, found in p99.items()}
    print(f"{options.store.split(':')[0]}: {options.megabytes} MB, {options.partitions} partitions, "
          f"{options.concurrency} requests of {CHUNK >> 20} MiB at a time, each answered after "
          f"{options.delay_ms} ms; medians of {options.rounds} rounds, tail p99 alone {p99['alone']:.0f} us")
    print(f"consumers / bare reader {rate:.2f}; tail p99 to that alone: beside consumers at "
          f"{options.pace} MB/s {tail['paced']:.2f}, as fast as they can {tail['unpaced']:.2f}, "
          f"beside the bare reader {tail['bare_reader']:.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"kind": "catch-up", "settings": vars(options), "rounds": rounds,
                       "ratio": {"rate": rate, "tail_p99": tail}}, file, indent=1)


main()
