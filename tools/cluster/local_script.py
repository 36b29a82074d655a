"""Three brokers of docs/deploy/local-cluster.sh under load: the script starts them, restarts one after the other
and stops them. Nothing acknowledged is lost, doubled or moved.
"""

import os
import subprocess

from brokers import Brokers, free_ports, is_running  # sets the path to other runs' modules
from watched import PATIENCE_SECONDS, Watched, parser_of, run_in_directory

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/deploy/local-cluster.sh")


class Scripted(Brokers):
    def __init__(self, binary, directory):
        super().__init__(binary, directory)
        self._port = free_ports()[0]

    def address(self, node):
        return f"127.0.0.1:{self._port + node}"

    def admin(self, node):
        return f"127.0.0.1:{self._port + 100 + node}"

    def log_path(self, node):
        return os.path.join(self.directory, "data", f"{node}.log")

    def start(self):
        self.script("start")

    def script(self, word):
        """By whom it is told what to do, and what is there then."""
        environment = {**os.environ, "TAILRACE": self.binary, "PORT": str(self._port)}
        done = subprocess.run([SCRIPT, word, os.path.join(self.directory, "data")], env=environment,
                              capture_output=True, text=True, timeout=4 * PATIENCE_SECONDS, check=False)
        print(done.stdout + done.stderr, end="")
        assert done.returncode == 0, f"local-cluster.sh {word} ended with {done.returncode}"
        before, self.pids = self.pids, {}
        for node in range(3):
            path = os.path.join(self.directory, "data", f"{node}.pid")
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    self.pids[node] = int(file.read())
        return before


class Run(Watched):
    name = "local-script"

    def __init__(self, options, directory):
        super().__init__(options, Scripted(options.binary, directory))

    def roll(self):
        before = self.cluster.script("roll")
        assert not set(before.values()) & set(self.cluster.pids.values()), "a broker was not restarted"
        self.load_goes_on()

    def start_one_again(self):
        """One that was killed; the others go on as they are."""
        killed, others = 1, {node: self.cluster.pids[node] for node in (0, 2)}
        self.cluster.kill(killed)
        self.cluster.start()
        assert {node: self.cluster.pids[node] for node in others} == others, "another one was restarted"
        self.cluster.await_all()
        self.load_goes_on()

    def stop(self):
        before = self.cluster.script("stop")
        assert len(before) == 3 and not any(map(is_running, before.values())), "a broker runs still"

    def check_all(self):
        self.check("the script starts three brokers, which take a load", self.begin)
        self.check("it restarts one after the other", self.roll)
        self.check("it starts who does not run", self.start_one_again)
        self.check("nothing acknowledged is lost, doubled or moved", self.verdict)
        self.check("it stops all", self.stop)


run_in_directory(Run, parser_of(__doc__).parse_args(), "local-script")
