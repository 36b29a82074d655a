"""The run must be able to say no: what each of its verdicts is for, on small made-up histories."""

import os
import sys
import types
import unittest
import zlib
from collections import defaultdict

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crash"))

from load import fault_of_record
from outage import faults_of_checksums, faults_of_pressure

PLACE = ("t", 0)
VALUES = [b"s:0:first", b"s:1:second"]
CHECKSUMS = defaultdict(list, {PLACE: [zlib.crc32(value) for value in VALUES]})
SENDER = types.SimpleNamespace(name="s", checksums=CHECKSUMS)


def sample(throttles, refused, free):
    return {"tailrace_produce_throttles_total": throttles, "tailrace_produce_refused_total": refused,
            "tailrace_wal_reserve_free_bytes": free}


class Verdict(unittest.TestCase):
    def test_a_record_is_as_it_was_sent(self):
        senders = {"s": SENDER}
        self.assertIsNone(fault_of_record(senders, PLACE, VALUES[1]))
        self.assertIn("checksum", fault_of_record(senders, PLACE, b"s:1:Second"))
        self.assertIn("nobody", fault_of_record(senders, PLACE, b"s:2:third"))
        self.assertIn("nobody", fault_of_record(senders, PLACE, b"t:0:first"))

    def test_a_changed_record_of_the_log_is_seen(self):
        log = [(0, "s", 0, CHECKSUMS[PLACE][0]), (1, "s", 1, CHECKSUMS[PLACE][1])]
        self.assertEqual(faults_of_checksums(PLACE, log, [SENDER]), [])
        log[1] = (1, "s", 1, 7)
        self.assertIn("[1]", faults_of_checksums(PLACE, log, [SENDER])[0])

    def test_the_order_of_pressure_is_seen(self):
        before = sample(3, 0, 100)
        quiet, slowed, full = sample(3, 0, 50), sample(9, 0, 0), sample(20, 1, 0)
        self.assertEqual(faults_of_pressure(before, [quiet, slowed, full]), [])
        early = faults_of_pressure(before, [sample(4, 0, 50), quiet, full])
        self.assertIn("before the reserve", early[0])
        self.assertIn("before they were slowed", faults_of_pressure(before, [sample(3, 1, 0), full])[0])
        self.assertIn("without", faults_of_pressure(before, [quiet, sample(3, 1, 0)])[0])


unittest.main()
