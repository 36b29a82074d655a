"""Waiting for what has to come, and what clients with a history noticed meanwhile."""

import time


def wait_until(what, holds, seconds, check=lambda: None):
    """Fails if it is not so in time; `check` may find a reason to fail before."""
    deadline = time.monotonic() + seconds
    while not holds():
        check()
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.1)


def check_clients(senders, readers):
    """No client ended, no record was refused, and none was read that was not sent so."""
    errors = [each.error for each in [*senders, *readers] if each.error]
    errors += [refused for sender in senders for refused in sender.refused]
    errors += [fault for reader in readers for fault in reader.faults]
    assert not errors, errors[:5]
