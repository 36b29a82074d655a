"""Where the time of a produce request goes, by the brokers' own histograms (`/metrics`)."""

import re
from collections import Counter
from urllib.request import urlopen

PRODUCE, COMMIT, APPEND, WRITE = (f"tailrace_{name}_latency_seconds"
                                  for name in ("produce", "raft_commit", "wal_append", "wal_write"))
BUCKET = re.compile(r'(\w+)_bucket\{(.*)le="([^"]+)"\} (\d+)')


class Scrape:
    """The histograms of one broker, summed over its shards; the difference of two is what came between."""

    def __init__(self, numbers):
        self._numbers = numbers

    @classmethod
    def of(cls, admin):
        numbers, below = Counter(), Counter()
        with urlopen(f"http://{admin}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                name, _, rest = line.partition("{")
                if name.endswith(("_sum", "_count")):
                    numbers[name] += float(rest.split()[-1])
                elif found := BUCKET.match(line):
                    # A broker tells how many are below a bound, and leaves out where that does not grow.
                    name, labels, bound, count = found.groups()
                    numbers[name, float(bound)] += int(count) - below[name, labels]
                    below[name, labels] = int(count)
        return cls(numbers)

    def __sub__(self, before):
        return Scrape({name: value - before._numbers.get(name, 0) for name, value in self._numbers.items()})

    def count(self, name):
        return self._numbers[f"{name}_count"]

    def mean_us(self, name):
        return 1e6 * self._numbers[f"{name}_sum"] / max(self._numbers[f"{name}_count"], 1)

    def quantile_us(self, name, quantile):
        """The bound of the bucket that it is in: at most a quarter above."""
        wanted = quantile * self.count(name)
        for bound, count in sorted((key[1], count) for key, count in self._numbers.items() if key[0] == name):
            wanted -= count
            if wanted <= 0:
                break
        return 1e6 * bound


def stages(client_mean_us, leader, followers=()):
    """Means in microseconds, one after the other; together they are what the client saw. An entry is
    committed when a majority has it: the last stage before the reply is what that took after, or
    instead of, the leader's own device."""
    produce, commit, append, write = map(leader.mean_us, (PRODUCE, COMMIT, APPEND, WRITE))
    found = {"client, network, kernel": client_mean_us - produce,
             "queue of the WAL": append - write,
             "device of the leader": write,
             "majority beyond that": commit - append,
             "reply": produce - commit}
    for number, follower in enumerate(followers, 1):
        found[f"(device of follower {number})"] = follower.mean_us(WRITE)
    return found
