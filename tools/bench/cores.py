"""Which core is the broker's: the one that the device interrupts.

A device with one queue interrupts one core, whoever wrote; what completes a write and makes it durable runs there,
in the kernel's threads. That is work for the broker, and would be taken from the load on the other core. Where a
device has a queue for each core it is core 0. BROKER_CORE in the environment says otherwise.
"""

import mmap
import os
import tempfile

WRITES, BLOCK = 256, 4096


def device_interrupts():
    """By core, of all devices; not the clock's, nor those between cores, which have names for numbers."""
    with open("/proc/interrupts", encoding="utf-8") as file:
        cores = len(next(file).split())
        rows = [line.split() for line in file]
    counts = [row[1:1 + cores] for row in rows if row[0].rstrip(":").isdigit()]
    return [sum(map(int, column)) for column in zip(*counts)]


def broker_core(directory):
    """Writes durably from core 0, and looks which core hears of it."""
    allowed, block = os.sched_getaffinity(0), mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it
    with tempfile.TemporaryDirectory(dir=directory) as own:
        file = os.open(os.path.join(own, "writes"), os.O_RDWR | os.O_CREAT | os.O_DIRECT | os.O_DSYNC)
        try:
            os.sched_setaffinity(0, {0})
            before = device_interrupts()
            for at in range(WRITES):
                os.pwrite(file, block, at * BLOCK)
            grown = [after - earlier for earlier, after in zip(before, device_interrupts())]
        finally:
            os.sched_setaffinity(0, allowed)
            os.close(file)
    return grown.index(max(grown))
