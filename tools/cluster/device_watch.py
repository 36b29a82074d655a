"""What the device of a run does by itself: beside the brokers a process makes 4 KiB durable again and again, as
their WALs do (O_DIRECT, O_DSYNC), and tells how long each time took. Brokers that share a device all stand still
while it does, and no replica helps.
"""

import mmap
import os
import subprocess
import sys
import threading
import time

BLOCK, BLOCKS = 4096, 4096
PAUSE_SECONDS = 0.003


class DeviceWatch:
    def __init__(self, directory):
        self._writes = []  # begin and end, by the monotonic clock
        command = [sys.executable, "-B", __file__, os.path.join(directory, "device-watch")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._writes.append(tuple(map(float, line.split())))

    def longest_ms(self, since, until):
        """Of the writes that were under way in that time."""
        meanwhile = [end - begin for begin, end in self._writes.copy() if end > since and begin < until]
        assert meanwhile, "the process that writes beside the brokers has stopped"
        return 1000 * max(meanwhile)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._reader.join()


def main():
    file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT | os.O_DSYNC)
    block = mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it
    block.write(b"w" * BLOCK)
    for at in range(BLOCKS):  # what follows writes over blocks that are there
        os.pwrite(file, block, at * BLOCK)
    at = 0
    while True:
        begin = time.monotonic()
        os.pwrite(file, block, at % BLOCKS * BLOCK)
        print(f"{begin} {time.monotonic()}", flush=True)
        at += 1
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
