"""The verdict must be able to say no: each kind of fault, on a small made-up history."""

import types
import unittest
import zlib
from collections import defaultdict

from histories import Witness, faults_of_copies, faults_of_histories, faults_of_repeats, tally

PLACE = ("t", 0)
VALUES = [b"s:0:zero", b"s:1:one", b"s:2:two"]
CHECKSUMS = [zlib.crc32(value) for value in VALUES]
SENDER = types.SimpleNamespace(
    name="s", idempotent=True, acknowledged=defaultdict(dict, {PLACE: {0: 0, 1: 1, 2: 2}}),
    checksums=defaultdict(list, {PLACE: CHECKSUMS}))


def log(*sequences):
    return {PLACE: [(offset, "s", sequence, CHECKSUMS[sequence]) for offset, sequence in enumerate(sequences)]}


def message(offset, value):
    return types.SimpleNamespace(topic=lambda: PLACE[0], partition=lambda: PLACE[1], offset=lambda: offset,
                                 value=lambda: value)


class Verdict(unittest.TestCase):
    def setUp(self):
        self.witness = Witness("w", "127.0.0.1:1", [PLACE], [SENDER], True)

    def read(self, *values):
        self.witness.ends[PLACE] = 0
        for offset, value in enumerate(values):
            self.witness._check(message(offset, value))

    def faults(self, logs):
        return faults_of_histories(logs, [SENDER], [self.witness])

    def test_a_whole_log_has_no_fault(self):
        self.read(*VALUES)
        self.read(*VALUES)
        self.assertEqual(self.faults(log(0, 1, 2)), [])
        self.assertEqual(faults_of_copies({0: log(0, 1), 1: log(0, 1), 2: log(0, 1)}), [])

    def test_an_acknowledgement_without_an_offset_is_one_still(self):
        told = SENDER.acknowledged[PLACE]
        SENDER.acknowledged[PLACE] = {**told, 1: None}
        self.addCleanup(SENDER.acknowledged.update, {PLACE: told})
        self.read(*VALUES)
        self.assertEqual(self.faults(log(0, 1, 2)), [])
        self.assertIn("1 acknowledged records of s are lost: [1]", self.faults(log(0, 2))[0])

    def test_what_was_acknowledged_and_is_lost_is_seen(self):
        self.assertIn("are lost", self.faults(log(0, 1))[0])

    def test_what_came_twice_or_out_of_order_is_seen(self):
        self.assertIn("twice", self.faults(log(0, 1, 2, 1))[0])
        self.assertTrue(any("out of order" in fault for fault in self.faults(log(0, 2, 1))))

    def test_what_was_read_and_is_gone_is_seen(self):
        self.read(*VALUES)
        self.assertIn("that it read are gone", self.faults(log(0, 1))[-1])

    def test_another_record_at_an_offset_is_seen(self):
        self.read(VALUES[0], VALUES[1])
        self.read(VALUES[0], VALUES[2])
        self.assertIn("another record before", self.witness.faults[0])

    def test_a_reader_that_skips_is_seen(self):
        self.witness._check(message(1, VALUES[1]))
        self.assertIn("came after", self.witness.faults[0])

    def test_copies_that_differ_are_seen(self):
        self.assertIn("first that differs is 1", faults_of_copies({0: log(0, 1), 2: log(0, 2)})[0])
        self.assertIn("first that differs is 1", faults_of_copies({0: log(0, 1), 2: log(0)})[0])

    def test_what_is_counted(self):
        self.assertEqual(tally(log(0, 2, 1, 1)[PLACE], SENDER, PLACE), {"lost": 0, "doubled": 1, "reordered": 1})
        self.assertEqual(tally(log(0, 2)[PLACE], SENDER, PLACE), {"lost": 1, "doubled": 0, "reordered": 0})

    def test_repeats_are_seen(self):
        self.assertEqual(faults_of_repeats(["a"], ["a", "b"]), [])
        self.assertIn("not there", faults_of_repeats(["a"], ["b"])[0])
        self.assertIn("2 times", faults_of_repeats(["a"], ["a", "b", "b"])[0])


unittest.main()
