"""What the clients' histories say of a cluster: beyond one log, that it is the same under each leader."""

import zlib

import brokers  # sets the path to the modules below

from load import Reader
from verdict import faults_of_group, faults_of_log


class Witness(Reader):
    """Remembers what it read, and where: read again, and under another leader, it must be the same."""

    def __init__(self, name, address, places, senders, starts_over, **more_settings):
        self.seen = {place: {} for place in places}  # offset -> checksum
        super().__init__(name, address, places, senders, starts_over, **more_settings)

    def _read_round(self):
        super()._read_round()
        # One that only starts over would read as fast as this machine can.
        self._stopping.wait(3)

    def _check(self, message):
        super()._check(message)
        place, offset = (message.topic(), message.partition()), message.offset()
        checksum = zlib.crc32(message.value())
        if self.seen[place].setdefault(offset, checksum) != checksum:
            self.faults.append(f"{self.name}: offset {offset} of {place} was another record before")


def faults_of_histories(logs, senders, readers):
    """Of one reading of the whole log: all that was acknowledged or read is there, once, in order."""
    faults = [fault for place, log in logs.items() for fault in faults_of_log(place, log, senders)]
    return faults + [fault for reader in readers for fault in faults_of_group(reader, logs)]


def tally(log, sender, place):
    """How many records of a sender were lost, came more than once, or came after a younger one."""
    sequences = [sequence for _, name, sequence, _ in log if name == sender.name]
    return {"lost": len(sender.acknowledged[place].keys() - set(sequences)),
            "doubled": len(sequences) - len(set(sequences)),
            "reordered": sum(after < before for before, after in zip(sequences, sequences[1:]))}


def faults_of_copies(copies):
    """By node, what each had when it led: the same."""
    (first, logs), *others = copies.items()
    return [f"{place}: node {node} has {len(copy[place])} records, node {first} {len(logs[place])}, "
            f"the first that differs is {first_difference(copy[place], logs[place])}"
            for node, copy in others for place in logs if copy[place] != logs[place]]


def first_difference(one, other):
    pairs = zip(one, other)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def faults_of_repeats(acknowledged, found):
    """Of values that were sent again and again, each under its sequence number."""
    return ([f"{value}: acknowledged, and not there" for value in acknowledged if value not in found]
            + [f"{value}: there {found.count(value)} times" for value in set(found) if found.count(value) > 1])
