# SPDX-License-Identifier: Apache-2.0
"""Processes a hook script left behind outside its process group, where it had no cgroup.

A script that calls setsid(2), or forks under a shell with job control, leaves
its group. Such strays are found by the AEGIS_EVENT_ID they inherited, which
nobody could guess. Scripts are root's own: this tidies up after careless ones,
it does not contain a hostile one. ``script_user`` has to be a user of its own:
whoever else is that user could make a sweep wait. What shall outlive a script is
started with ``systemd-run``.
"""

import os
import select
import signal
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_DEATH_MS = 500
_ROUNDS = 5  # a stray that keeps forking is met again


def kill_strays(event_id: str, uids: Container[int | None]) -> int:
    """Kill the processes of *uids* that carry *event_id*; return how many there were.

    Takes milliseconds on a busy host: not to be called from the event loop.
    """
    mark = f"AEGIS_EVENT_ID={event_id}".encode()
    killed = 0
    for _ in range(_ROUNDS):
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
        found = sum(_kill_if_marked(pid, mark, uids) for pid in pids)
        if not found:
            break
        killed += found
    return killed


def _kill_if_marked(pid: int, mark: bytes, uids: Container[int | None]) -> bool:
    proc = _PROC / str(pid)
    with suppress(OSError):
        # Not to read the memory of a stranger, who might make us wait for it.
        if pid == os.getpid() or proc.stat().st_uid not in uids:
            return False
        pidfd = os.pidfd_open(pid)
        try:
            if mark in (proc / "environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                _wait_for_end(pidfd)
                return True
        finally:
            os.close(pidfd)
    return False


def _wait_for_end(pidfd: int) -> None:
    """Return when the process has ended: whoever is told it is gone may look."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_DEATH_MS)
