"""A broker's WAL on a disk that is slow or fails, on demand (slowdisk.c)."""

import os
import subprocess


class SlowDisk:
    """Is between the broker and the file at `path` until it is ended; at first it does nothing."""

    def __init__(self, program, path):
        self._process = subprocess.Popen([program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("mounted")

    def delay(self, milliseconds):
        """Each write, from now on; others go on meanwhile."""
        self._tell(f"delay {milliseconds}")

    def fail(self):
        """Each write."""
        self._tell("fail")

    def heal(self):
        self._tell("ok")

    def end(self):
        self._process.stdin.close()
        self._process.wait(10)

    def _tell(self, command):
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._expect("done")

    def _expect(self, word):
        line = self._process.stdout.readline().strip()
        assert line == word, f"the slow disk said {line!r} where {word!r} was expected"


def on_slow_disks(cluster, program):
    """Starts all of a cluster anew, with each WAL on such a disk; they are returned, by node."""
    cluster.stop()
    disks = [SlowDisk(program, os.path.join(cluster.data(node), "wal")) for node in range(3)]
    for node in range(3):
        cluster.restart(node)
    cluster.await_all()
    return disks
