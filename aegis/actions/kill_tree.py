# SPDX-License-Identifier: Apache-2.0
"""The descendants of a process that is to be killed: held still, then killed.

What is stopped can neither fork nor lose its children to init, so a few looks
at /proc find all of them. A process that had left its parent before the first
look (a daemon) is nobody's descendant any more.

How many there are is the offender's choice: of each only two numbers are kept. Who
was stopped is known again by its start time, as whoever is killed is.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aegis.actions.processes import children, read_stat

_ROUNDS = 32  # each finds what was forked before its parent was stopped


def kill_descendants(pid: int, is_spared: Callable[[int], bool]) -> int:
    """Kill what descends from *pid*, itself stopped already; return how many.

    Who is spared is passed over, with what descends from it.
    """
    stopped: dict[int, int] = {}  # PID → start, in ticks
    try:
        _stop_all(pid, is_spared, stopped)
    finally:
        # Whatever went wrong, none may be left standing still.
        killed = sum(_kill(child, start) for child, start in stopped.items())
    return killed


def _stop_all(pid: int, is_spared: Callable[[int], bool], stopped: dict[int, int]) -> None:
    for _ in range(_ROUNDS):
        parents = {pid, *stopped}
        found = [child for child in _below(pid, children(), is_spared) if child not in stopped]
        before = len(stopped)
        for child in found:
            start = _stop(child, parents)
            if start is not None:
                stopped[child] = start
                parents.add(child)
        if len(stopped) == before:
            break


def _below(
    pid: int, by_parent: dict[int, list[int]], is_spared: Callable[[int], bool]
) -> Iterator[int]:
    """Parents before their children, however deep."""
    # Numbers given out anew while they were read may seem to descend from each other.
    seen, todo = {pid}, list(by_parent.get(pid, ()))
    while todo:
        child = todo.pop()
        if child not in seen and not is_spared(child):
            seen.add(child)
            yield child
            todo += by_parent.get(child, ())


def _stop(pid: int, parents: set[int]) -> int | None:
    """Stop *pid* if one of *parents* still is its parent: then the number is still its own.

    Return when it was started.
    """
    with suppress(OSError), _held(pid) as pidfd:
        now = read_stat(pid)
        if now.ppid in parents:
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            return now.start_ticks
    return None


def _kill(pid: int, start_ticks: int) -> bool:
    with suppress(OSError), _held(pid) as pidfd:
        if read_stat(pid).start_ticks == start_ticks:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return True
    return False


@contextmanager
def _held(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)
