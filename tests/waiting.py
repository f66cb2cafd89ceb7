"""Waiting for what another process does, as long as a busy machine may take for it."""

import contextlib
import os
import time

import psutil

LONG = 600  # seconds; what has not happened by then has not been slow but has failed


def until(happened, process=None):
    """Wait until ``happened()``; fails after `LONG`, and at once where ``process`` ends before.

    What the process printed is shown where it ends; its standard output has to be a pipe of text.
    """
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline, f"it has not happened within {LONG} s"
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def alive(group):
    """Whether any process of a group is left; one that has ended and that nobody has asked for its exit is not."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
