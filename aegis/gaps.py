# SPDX-License-Identifier: Apache-2.0
"""What the kernel had to drop, and what happened while no agent ran: told once, with its time.

A gap begins when the agent last looked and nothing was lost, ends when it looks and nothing
more is, and is one notice. What was told is noted in the kernel, so that the next agent
goes on from there, however this one ends.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aegis.actions.notice import Tell
from aegis.bpf.maps import Map
from aegis.bpf.noisy import Noisy
from aegis.bpf.watch import Look, keep_look, read_look

NAMED = 5  # of those whose events were lost
LONGEST_NS = 60 * 1_000_000_000  # a gap that does not end is told in parts

# Counter -> kind of notice, and what happened to so many.
_LOST = {
    "lost": ("events-lost", "events were lost: the ring was full; verdicts stood"),
    "history_lost": ("history-lost", "decisions are not in history: its kernel table was full"),
    "history_folded": (
        "history-folded",
        "decisions are in history without their destinations: its kernel table was full",
    ),
}


@dataclass
class _Gap:
    begun_ns: int
    before: int  # what the counter was
    count: int = 0
    end_ns: int = 0


class Gaps:
    """*counters*: the kernel's; *noted*: the map of the note; *stamp*: boot time to wall time.

    *noisy*: takes whose events were lost, the noisiest first; *boot_ns*: the clock.
    """

    def __init__(  # noqa: PLR0913 (the last two by name only, for tests)
        self,
        counters: Callable[[], dict[str, int]],
        noted: Map,
        stamp: Callable[[int], str],
        tell: Tell,
        *,
        noisy: Callable[[], Sequence[Noisy]] = tuple,
        boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self._counters = counters
        self._noted = noted
        self._stamp = stamp
        self._tell = tell
        self._noisy = noisy
        self._boot_ns = boot_ns
        self._open: dict[str, _Gap] = {}
        self._inherited = read_look(noted)
        self._last = self._inherited or self._look()

    def _look(self) -> Look:
        return Look(self._boot_ns(), self._counters())

    def tell_inherited(self) -> None:
        """What happened between the last look of an earlier agent and now."""
        before = self._inherited
        if before is None:
            self._note()  # from now on there is something to tell
            return
        now = self._look()
        names = ("decided", "blocked", "would_block", "lost")
        since = {name: now.counters[name] - before.counters[name] for name in names}
        seconds = (now.boot_ns - before.boot_ns) / 1e9
        message = (
            f"took over what an earlier agent had put in force: {since['decided']} decisions in "
            f"{seconds:.1f} s without one, {since['blocked']} of them blocked"
        )
        self._notice("adopted", message, before.boot_ns, now.boot_ns, since)

    def look(self) -> None:
        """To be called again and again: tells of every gap that has ended."""
        now = self._look()
        for name in _LOST:
            self._follow(name, now)
        self._last = now
        self._note()

    def _follow(self, name: str, now: Look) -> None:
        count = now.counters[name] - self._last.counters[name]
        gap = self._open.get(name)
        if count:
            if gap is None:
                gap = self._open[name] = _Gap(self._last.boot_ns, self._last.counters[name])
            gap.count += count
            gap.end_ns = now.boot_ns
        if gap is not None and (not count or now.boot_ns - gap.begun_ns > LONGEST_NS):
            self._close(name)

    def _close(self, name: str) -> None:
        gap = self._open.pop(name)
        kind, message = _LOST[name]
        message = f"{gap.count} {message}"
        ours: dict[str, object] = {"lost": gap.count}
        if name == "lost" and (noisy := self._noisy()):
            message += f"; most were of {noisy[0].path}, process {noisy[0].pid}"
            ours["noisy"] = [
                {"pid": one.pid, "executable": one.path, "lost": one.lost} for one in noisy[:NAMED]
            ]
        self._notice(kind, message, gap.begun_ns, gap.end_ns, ours)

    def _note(self) -> None:
        """What is told: of an open gap, nothing yet."""
        counters = dict(self._last.counters)
        begun = [self._last.boot_ns]
        for name, gap in self._open.items():
            counters[name] = gap.before
            begun.append(gap.begun_ns)
        keep_look(self._noted, Look(min(begun), counters))

    def _notice(
        self, kind: str, message: str, begun_ns: int, end_ns: int, ours: Mapping[str, object]
    ) -> None:
        times = {"start": self._stamp(begun_ns), "end": self._stamp(end_ns)}
        self._tell(kind, message, {"event": times, "aegis": ours})

    def close(self) -> None:
        """Tell what is open: nobody will look again."""
        self.look()
        for name in list(self._open):
            self._close(name)
        self._note()
