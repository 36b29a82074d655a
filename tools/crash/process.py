"""The broker as a process: started, waited for, killed, stopped; always by its pid."""

import os
import random
import signal
import socket
import subprocess
import threading
import time


def free_port():
    """A port below the ephemeral range: while the broker is down, a client that connects to a port
    within it can be given that very port as its own, reach itself, and keep the broker out."""
    for port in random.SystemRandom().sample(range(20000, 30000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 30000")


# A small log that is offloaded and trimmed all the time: a kill may come at any step of that.
SMALL_LOG = ["--wal-size", "128MiB", "--set", "offload.age.ms=100", "--set", "offload.bytes=131072"]


class Broker:
    READY_SECONDS_MAX = 60

    def __init__(self, binary, directory, arguments=SMALL_LOG):
        self.address = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        self.log_path = os.path.join(directory, "broker.log")
        self._command = [binary, "dev", "--data-dir", os.path.join(directory, "data"),
                         "--listen", self.address, "--admin", self.admin, *arguments]
        self._process = None
        self.kills = 0
        self.slowest_start = 0.0

    def start(self, fail_point=None):
        """Starts it, to die at that step if one is given; `wait_ready` says when it serves."""
        self._ready = threading.Event()
        self._started = time.monotonic()
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True,
                                         env=self._environment(fail_point))
        threading.Thread(target=self._read, args=(self._process, self._ready), daemon=True).start()

    @staticmethod
    def _environment(fail_point):
        environment = dict(os.environ)
        environment.pop("TAILRACE_FAIL_POINT", None)
        if fail_point:
            environment["TAILRACE_FAIL_POINT"] = fail_point
        return environment

    def _read(self, process, ready):
        with open(self.log_path, "a", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if line.startswith("ready on "):
                    ready.set()

    def wait_ready(self):
        while not self._ready.wait(0.05):
            waited = time.monotonic() - self._started
            assert self._process.poll() is None, f"the broker ended with {self._process.returncode}"
            assert waited < self.READY_SECONDS_MAX, f"not ready after {waited:.0f} s"
        self.slowest_start = max(self.slowest_start, time.monotonic() - self._started)

    def kill(self):
        assert self._process.poll() is None, f"the broker ended with {self._process.returncode}"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.kills += 1

    def wait_killed(self, seconds_max):
        """Until the broker has killed itself; false if it did not in time."""
        try:
            status = self._process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            return False
        assert status == -signal.SIGKILL, f"the broker ended with {status}"
        self.kills += 1
        return True

    def stop(self):
        """SIGTERM; the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def is_up(self):
        return self._process.poll() is None

    def clean_up(self):
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
