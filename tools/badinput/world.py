"""What the cases need: the broker as a process, loop devices, mounts; all of it undone at the end."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

READY_SECONDS_MAX = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Refusal:
    """How a command that must fail ended."""

    def __init__(self, command, wrapper=()):
        self.shown = " ".join(command[1:])
        ended = subprocess.run([*wrapper, *command], capture_output=True, text=True, timeout=60,
                               check=False)
        self.status = ended.returncode
        self.lines = [line for line in ended.stderr.splitlines() if line.strip()]

    def check(self, *words):
        """One line on standard error that holds one of the words of each group; non-zero exit."""
        assert self.status not in (0, 101, -signal.SIGSEGV, -signal.SIGABRT), \
            f"{self.shown}: exit {self.status}: {self.lines}"
        assert len(self.lines) == 1, f"{self.shown}: not one line: {self.lines}"
        line = self.lines[0].lower()
        for group in words:
            alternatives = group.split("|")
            assert any(word in line for word in alternatives), \
                f"{self.shown}: the line does not say {group!r}: {line}"
        return self.lines[0]


class World:
    def __init__(self, binary, parent):
        self.binary = binary
        self.directory = tempfile.mkdtemp(prefix="badinput.", dir=parent)
        self._undo = contextlib.ExitStack()
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def close(self):
        self._undo.close()

    def path(self, name):
        return os.path.join(self.directory, name)

    def dev(self, directory, *more, listen=None, wal_size="64MiB", cores=1):
        """The command line of a broker on free ports."""
        return [self.binary, "dev", "--data-dir", directory, "--cores", str(cores),
                "--wal-size", wal_size, "--listen", listen or f"127.0.0.1:{free_port()}",
                "--admin", f"127.0.0.1:{free_port()}", *more]

    @contextlib.contextmanager
    def broker(self, directory, *more, ends=0, **settings):
        """A running broker; gives its address and a function that reads its output. It is stopped at
        the end, unless it is to end by itself with another status than 0."""
        address = f"127.0.0.1:{free_port()}"
        log = self.path("log")
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(self.dev(directory, *more, listen=address, **settings),
                                       stdout=out, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + READY_SECONDS_MAX
            while "ready on " not in self._text(log):
                assert process.poll() is None, f"exit {process.returncode}: {self._text(log)}"
                assert time.monotonic() < deadline, f"not ready: {self._text(log)}"
                time.sleep(0.05)
            yield address, lambda: self._text(log)
            if ends == 0:
                process.terminate()
            assert process.wait(20) == ends, f"exit {process.returncode}: {self._text(log)}"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @staticmethod
    def _text(path):
        with open(path, encoding="utf-8") as file:
            return file.read()

    def run(self, *command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def loop_device(self, name, size):
        image = self.path(name)
        with open(image, "wb") as file:
            file.truncate(size)
        device = self.run("losetup", "--find", "--show", image)
        self._undo.callback(self.run, "losetup", "--detach", device)
        return device

    def mount(self, name, *what):
        folder = self.path(name)
        os.mkdir(folder)
        self.run("mount", *what, folder)
        self._undo.callback(self.run, "umount", folder)
        return folder
