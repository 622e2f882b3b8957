# SPDX-License-Identifier: Apache-2.0
"""Who has a place when only so many hook scripts may run at once.

Nobody waits for one that hangs.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aegis.actions.cage import Freeze

TURN_S = 1.0  # for so long a run has its place to itself


@dataclass(eq=False)
class Run:
    """A script at work. One that is suspended has no place, and no processor.

    *freeze* suspends it, or lets it go on; None as long as it is not started (who starts it
    must not wait for its turn), and without a cgroup.
    """

    path: Path
    freeze: Freeze | None = None
    since: float = field(default_factory=time.monotonic)  # it runs, or is suspended
    suspended: bool = False

    def started(self, freeze: Freeze | None) -> None:
        self.freeze = freeze

    def switch(self, *, suspended: bool) -> bool:
        """Whether it could be; without a cgroup it cannot."""
        if self.freeze is None or not self.freeze(suspended):
            return False
        self.suspended, self.since = suspended, time.monotonic()
        return True


class Places:
    """The runs there are, and what is known of their scripts.

    One script alone never takes all places. One that is not known to end in time takes
    one, and all such together leave a place to the others; of these, those that last ran
    into their limit leave one to those that never ran (unless there are too few places).
    That is enough while few hang. Where all places are taken nevertheless, a script that
    has no run gets the place of a run that had its turn, which is suspended until there
    is room, or somebody else had his: its cgroup is frozen.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.runs: set[Run] = set()
        self._proven: set[Path] = set()  # scripts whose last run ended by itself
        self._hanging: set[Path] = set()  # scripts whose last run had to be ended

    def learn(self, path: Path, *, hangs: bool) -> None:
        known, other = (self._hanging, self._proven) if hangs else (self._proven, self._hanging)
        known.add(path)
        other.discard(path)

    @property
    def has_room(self) -> bool:
        return len(self._active()) < self.most

    @property
    def has_suspended(self) -> bool:
        return any(run.suspended for run in self.runs)

    def pick(self, paths: Iterable[Path]) -> Path | None:
        """Of those that wait, the first of the script that runs least; None: each has its share."""
        running = Counter(run.path for run in self._active())
        free = (path for path in dict.fromkeys(paths) if self._may_run(path, running))
        return min(free, key=lambda path: running[path], default=None)

    def pick_in_need(self, paths: Iterable[Path]) -> Path | None:
        """Of those that wait, the first that has no run at all."""
        present = {run.path for run in self.runs}
        return next((path for path in paths if path not in present), None)

    def make_room(self) -> bool:
        """Suspend a run that had its turn, if there is one: of those that may well hang first."""
        now, active = time.monotonic(), self._active()
        runs = [run for run in active if run.path not in self._proven] or active
        runs.sort(key=lambda run: run.since)
        return any(now - run.since >= TURN_S and run.switch(suspended=True) for run in runs)

    def resume(self) -> None:
        """Let those go on that are suspended: where there is room, else one in another's place."""
        for run in sorted((r for r in self.runs if r.suspended), key=lambda run: run.since):
            running = Counter(other.path for other in self._active())
            if not (self.has_room and self._may_run(run.path, running)) and not self.make_room():
                return
            run.switch(suspended=False)

    def _active(self) -> list[Run]:
        return [run for run in self.runs if not run.suspended]

    def _may_run(self, path: Path, running: Counter[Path]) -> bool:
        """Whether one more run leaves a place to those that end sooner."""
        share = max(1, self.most - 1)
        if path in self._proven:
            return running[path] < share
        unproven = sum(count for other, count in running.items() if other not in self._proven)
        hanging = sum(count for other, count in running.items() if other in self._hanging)
        if path in self._hanging and hanging >= max(1, share - 1):
            return False
        return not running[path] and unproven < share
