# SPDX-License-Identifier: Apache-2.0
"""The descendants of a process that is to be killed, held still.

What is stopped can neither fork nor lose its children to init, so a few looks
at /proc find all of them. A process that had left its parent before the first
look (a daemon) is nobody's descendant any more.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

from aegis.actions.processes import children, read_stat

_ROUNDS = 32  # each finds what was forked before its parent was stopped


def stop_descendants(pid: int, is_spared: Callable[[int], bool]) -> dict[int, int]:
    """Stop what descends from *pid*, itself stopped already; return PID → pidfd, to be closed.

    Who is spared is passed over, with what descends from it.
    """
    stopped: dict[int, int] = {}
    for _ in range(_ROUNDS):
        parents = {pid, *stopped}
        found = [child for child in _below(pid, children(), is_spared) if child not in stopped]
        before = len(stopped)
        for child in found:
            pidfd = _stop(child, parents)
            if pidfd is not None:
                stopped[child] = pidfd
                parents.add(child)
        if len(stopped) == before:
            break
    return stopped


def _below(
    pid: int, by_parent: dict[int, list[int]], is_spared: Callable[[int], bool]
) -> Iterator[int]:
    """Parents before their children."""
    for child in by_parent.get(pid, ()):
        if not is_spared(child):
            yield child
            yield from _below(child, by_parent, is_spared)


def _stop(pid: int, parents: set[int]) -> int | None:
    """Stop *pid* if one of *parents* still is its parent: then the number is still its own."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if read_stat(pid).ppid in parents:
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
                return pidfd
        except OSError:
            os.close(pidfd)
            raise
        os.close(pidfd)
    return None
