"""The verdict must be able to say no: each kind of loss, on a small made-up history."""

import types
import unittest
from collections import defaultdict

from groups import GroupHistory
from verdict import faults_of_group, faults_of_log

PLACE = ("t", 0)


def sender(acknowledged, idempotent=True):
    history = defaultdict(dict, {PLACE: acknowledged})
    return types.SimpleNamespace(name="s", idempotent=idempotent, acknowledged=history)


def log(*sequences):
    return [(offset, "s", sequence, sequence) for offset, sequence in enumerate(sequences)]


class Verdict(unittest.TestCase):
    def faults(self, entries, **kept):
        return faults_of_log(PLACE, entries, [sender(**kept)])

    def test_a_whole_log_has_no_fault(self):
        self.assertEqual(self.faults(log(0, 1, 2), acknowledged={0: 0, 1: 1}), [])

    def test_a_lost_record_is_seen(self):
        self.assertIn("are lost", self.faults(log(0, 2), acknowledged={1: 1})[0])

    def test_a_moved_record_is_seen(self):
        self.assertIn("not at the offset", self.faults(log(0, 1), acknowledged={1: 0})[0])

    def test_a_repeated_record_is_seen(self):
        self.assertIn("twice", self.faults(log(0, 1, 1), acknowledged={})[0])
        self.assertEqual(self.faults(log(0, 1, 1), acknowledged={1: 1}, idempotent=False), [])

    def test_a_changed_order_is_seen(self):
        self.assertIn("out of order", self.faults(log(1, 0), acknowledged={})[0])

    def test_a_hole_in_the_offsets_is_seen(self):
        self.assertIn("dense", self.faults(log(0, 1)[1:], acknowledged={})[0])

    def test_what_a_group_read_and_is_gone_is_seen(self):
        history = GroupHistory("g")
        history.seen[PLACE] = {0: 0, 1: 99}
        self.assertIn("1 records", faults_of_group(history, {PLACE: log(0, 1)})[0])

    def test_a_group_that_resumes_elsewhere_is_seen(self):
        history = GroupHistory("g")
        history.attempted[PLACE] = 7
        history.check_position(PLACE, 6, 5)
        self.assertEqual(history.faults, [])
        history.check_position(PLACE, 4, 5)
        history.check_position(PLACE, 8, 5)
        self.assertEqual(len(history.faults), 2)


unittest.main()
