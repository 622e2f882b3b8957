# SPDX-License-Identifier: Apache-2.0
"""Self-test and evidence: that verdicts are carried out, and that nobody changed what decides.

The watchdog of systemd is fed by a proof only: a child that was refused, and told of
through the very ring that events come by.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from aegis import systemd
from aegis.bpf.evidence import Evidence
from aegis.errors import KernelError
from aegis.parts import Parts
from aegis.tasks import TableLock, tick

LOOK_S = 1.0
PROVE_S = 10.0  # without a watchdog; else three times in its time
ARRIVAL_S = 8.0  # for an event through a ring that may be full
MOST = 0.1  # of a processor, on a machine so slow that to look takes that long


class Proving:
    """*lock* tells when we write the kernel's tables: what is there then is what must stay.

    *flush* writes what was told: there may be no batch of events for long.
    """

    def __init__(self, parts: Parts, lock: TableLock, flush: Callable[[], object]) -> None:
        self._parts = parts
        self._flush = flush
        self._lock = lock
        lock.begins, lock.ended = self._about_to_write, self._written
        self._begun = False
        self._evidence: Evidence | None = None
        self._is_due = False  # the evidence is of before we last wrote
        self._found: frozenset[str] = frozenset()
        self._unproven = ""
        self._awaited: dict[int, asyncio.Future[None]] = {}
        self._early: set[int] = set()
        self._last = 0.0

    def status(self) -> Mapping[str, Any]:
        """*degraded*: what is wrong now; *proven_s*: since the last proof."""
        wrong = sorted(self._found) + ([self._unproven] if self._unproven else [])
        proven = round(time.monotonic() - self._last, 1) if self._last else None
        return {"degraded": wrong, "proven_s": proven}

    # ---- evidence ----

    def _about_to_write(self) -> None:
        """We: what somebody else wrote before must not pass for ours."""
        if self._begun and self._evidence is not None and not self._is_due:
            self._compare(self._evidence, is_brief=True)

    def _written(self) -> None:
        """By us: another baseline, before anybody else has a chance."""
        if not self._begun:
            return
        self._is_due = True
        evidence = self._evidence
        if evidence is None:
            asyncio.get_running_loop().call_soon(self._look)
            return
        self._take(evidence)
        found = evidence.found_writing()
        if found:
            self._found_now(self._found | found)

    def _take(self, evidence: Evidence) -> None:
        try:
            evidence.take()
        except (KernelError, OSError) as error:
            self._evidence = None
            self._found_now(frozenset({str(error)}))
        else:
            self._evidence, self._is_due = evidence, False

    def stop(self) -> None:
        """Look no more: what is let go of now is not gone."""
        self._begun = False

    async def look_forever(self) -> None:
        """Once a second: what somebody else changed is told, once."""
        self._begun = True
        while True:
            begun = time.thread_time()
            self._look()
            await tick(max(LOOK_S, (time.thread_time() - begun) / MOST))

    def _look(self) -> None:
        if self._lock.is_writing or not self._begun:
            return
        if self._evidence is None:
            try:
                self._take(self._parts.kernel.evidence())
            except (KernelError, OSError) as error:
                self._found_now(frozenset({str(error)}))
        elif self._is_due:
            self._take(self._evidence)
        else:
            self._compare(self._evidence)

    def _compare(self, evidence: Evidence, *, is_brief: bool = False) -> None:
        try:
            found = frozenset(evidence.look(is_brief=is_brief))
        except (KernelError, OSError) as error:
            found = frozenset({str(error)})
        if found:
            evidence.distrust()
        self._found_now(found)

    def _found_now(self, found: frozenset[str]) -> None:
        for line in sorted(found - self._found):
            self._tell("tampered", line, "failure")
        for line in sorted(self._found - found):
            self._tell("restored", f"no longer: {line}", "success")
        self._found = found

    # ---- proof ----

    def arrived(self, pid: int) -> None:
        """The event of a refused child came out of the ring."""
        waiting = self._awaited.get(pid)
        if waiting is None:
            self._early.add(pid)
        elif not waiting.done():
            waiting.set_result(None)

    async def prove_forever(self) -> None:
        """Feed the watchdog with each proof; what fails is told once, and tried again."""
        microseconds = int(os.environ.get("WATCHDOG_USEC") or 0)
        pause = microseconds / 3e6 if microseconds else PROVE_S
        while True:
            why = await self._prove()
            if not why:
                self._last = time.monotonic()
                systemd.notify("WATCHDOG=1")
            if why and not self._unproven:
                self._tell("self-test-failed", why, "failure")
            if self._unproven and not why:
                self._tell("self-test-passed", "verdicts are carried out again", "success")
            self._unproven = why
            await tick(pause if not why else min(pause, 1.0))

    async def _prove(self) -> str:
        """Why it is no proof; empty: it is one."""
        self._early.clear()
        try:
            pid, result = await asyncio.to_thread(self._parts.kernel.prove)
        except (KernelError, OSError) as error:
            return f"self-test: {error}"
        if result != errno.EPERM:
            got = os.strerror(result) if result else "nothing refused it"
            return f"self-test: a connection that must be refused was not: {got}"
        if pid in self._early:
            return ""
        waiting = self._awaited[pid] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(waiting, ARRIVAL_S)
        except TimeoutError:
            return "self-test: a connection was refused, but its event did not arrive"
        finally:
            del self._awaited[pid]
        return ""

    def _tell(self, kind: str, message: str, outcome: str) -> None:
        self._parts.reactions.notice(kind, message, {"event": {"outcome": outcome}})
        self._parts.say(f"aegis: {message}")
        self._parts.reactions.flush()
        self._flush()
