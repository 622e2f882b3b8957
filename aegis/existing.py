# SPDX-License-Identifier: Apache-2.0
"""What was there before the agent: sockets judged, told and, if the policy asks for it, closed.

Verdicts are those of the kernel's own judge program, on the identities in its
``procs`` map: nothing is decided here but what must not be cut.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from aegis.actions.defects import OnDefect, raise_it
from aegis.actions.notice import Tell
from aegis.actions.processes import ancestors
from aegis.bpf import diag
from aegis.bpf.existing import Held, Judged, held_sockets, judge, to_event
from aegis.bpf.layout import text_of
from aegis.bpf.object import BpfObject
from aegis.errors import AegisError, KernelError
from aegis.events.event import Event, IdentityFlag
from aegis.naming import Naming
from aegis.policy.model import Direction, Settings, Verdict

SSHD = frozenset({b"sshd", b"sshd-session", b"sshd-auth"})  # the last two since OpenSSH 9.8, 10.0
_TURN = 32  # sockets; then other work gets the loop


# Closes a socket, as ``diag.destroy``: not found, it is False.
Destroy = Callable[[Held, list[int]], bool]


@dataclass
class Tally:
    """What a sweep came to, in sockets."""

    sockets: int = 0
    off_the_map: int = 0
    severed: int = 0
    spared: int = 0
    failed: int = 0
    done: bool = False


@dataclass
class Existing:
    """One sweep. *handle* gets the events, *tell* what else is worth a line."""

    loaded: BpfObject
    settings: Settings
    naming: Naming
    handle: Callable[[Event], None]
    tell: Tell
    destroy: Destroy = diag.destroy
    tally: Tally = field(default_factory=Tally)
    on_defect: OnDefect = raise_it

    async def sweep(self, after_turn: Callable[[], None]) -> None:
        """Judge every socket that a governed process holds; verdicts must be in force."""
        try:
            self._login = ancestors()
            self._missed: list[tuple[Held, list[Judged]]] = []
            for number, holders in enumerate(_by_socket(held_sockets(self.loaded)), 1):
                self._check_contained(holders)
                if number % _TURN == 0:
                    after_turn()
                    await asyncio.sleep(0)
            self._sever_missed()
        except AegisError as error:
            message = "what was open before the agent could not be judged"
            self.tell("existing-failed", message, _failure(error))
            self.tally.failed += 1
        self.tally.done = True
        self._tell_end()

    def _check_contained(self, holders: list[Held]) -> None:
        try:
            self._check(holders)
        except AegisError:
            raise
        except Exception as error:  # else one socket would cost the agent, at each start
            self.tally.failed += 1
            self.on_defect(error)

    def _check(self, holders: list[Held]) -> None:
        self.tally.sockets += 1
        judged = list(judge(self.loaded, holders))
        reported = [one for one in judged if one.answer["report"]]
        if not reported:
            return
        self.tally.off_the_map += 1
        refused = any(one.verdict is Verdict.BLOCKED for one in reported)
        spared, severed = "", False
        if refused and self.settings.sever_existing:
            spared = why_spared(judged, self._login)
            if not spared:
                found = self._sever(holders[0], reported)
                if found is None:
                    return
                severed = found
        self._report(reported, spared, severed=severed)

    def _sever(self, held: Held, reported: list[Judged]) -> bool | None:
        """Whether it was closed; None: not found, so it is for ``_sever_missed`` to report."""
        try:
            found = self.destroy(held, [one.held.tgid for one in reported])
        except (AegisError, OSError) as error:
            self._tell_unsevered(held, error)
            return False
        if not found:
            self._missed.append((held, reported))
            return None
        self.tally.severed += 1
        return True

    def _sever_missed(self) -> None:
        """Of listeners that share a port one is found at a time: again, until there is no more."""
        todo: list[tuple[Held, list[Judged]]] = []
        while self._missed and len(self._missed) != len(todo):
            todo, self._missed = self._missed, []
            for held, reported in todo:
                severed = self._sever(held, reported)
                if severed is not None:
                    self._report(reported, "", severed=severed)
        there = {held.cookie for held in held_sockets(self.loaded)} if self._missed else set()
        for held, reported in self._missed:
            if held.cookie in there:
                self._tell_unsevered(held, KernelError("the kernel found another one in its place"))
            self._report(reported, "", severed=False)

    def _tell_unsevered(self, held: Held, error: Exception) -> None:
        self.tally.failed += 1
        message = f"a connection of process {held.tgid} could not be closed"
        fields = {"process": {"pid": held.tgid}}
        self.tell("sever-failed", message, _failure(error) | fields)

    def _report(self, reported: list[Judged], spared: str, *, severed: bool) -> None:
        self.tally.spared += bool(spared)
        told = set()
        for one in sorted(reported, key=lambda one: one.held.start_boot_ns):
            program = (one.proc["device"], one.proc["inode"], one.answer["app"])
            # What was cut is told in any case; its workers share it.
            if (one.answer["silent"] and not severed) or program in told:
                continue
            told.add(program)
            verdict = one.verdict
            if verdict is Verdict.BLOCKED and not severed:
                verdict = Verdict.WOULD_BLOCK
            named = self.naming.name(dict(one.answer))
            self.handle(to_event(one, named, verdict, self.settings.mode, spared))

    def _tell_end(self) -> None:
        tally = self.tally
        message = (
            f"{tally.sockets} sockets were open before the agent, {tally.off_the_map} off the map: "
            f"{tally.severed} closed, {tally.spared} spared, {tally.failed} not closed"
        )
        self.tell("existing-checked", message, {"aegis": {"sweep": asdict(tally)}})


def why_spared(judged: list[Judged], login: set[int]) -> str:
    """Whose connection it is too, so that it is not cut; empty: it may be.

    *judged*: one for each process that holds it; *login*: whom the agent descends from.
    """
    pids = {one.held.tgid for one in judged}
    if 1 in pids:
        return "init"
    if os.getpid() in pids:
        return "agent"
    if pids & login or any(map(_is_ssh_login, judged)):
        return "login"
    allowed = any(one.verdict is not Verdict.BLOCKED for one in judged)
    return "shared" if allowed else ""


def _is_ssh_login(one: Judged) -> bool:
    """Who came in by ssh, and the way to come in again; not where sshd itself goes."""
    trusted = IdentityFlag(one.proc["flags"]) & IdentityFlag.TRUSTED
    inbound = one.held.direction is Direction.IN
    return inbound and bool(trusted) and text_of(one.proc["exe"]) in SSHD


def _by_socket(sockets: Iterable[Held]) -> Iterator[list[Held]]:
    ordered = sorted(sockets, key=lambda held: (held.cookie, held.tgid))
    for _, holders in groupby(ordered, key=lambda held: held.cookie):
        # Threads that do not share their files are listed one by one.
        yield list({held.tgid: held for held in holders}.values())


def _failure(error: Exception) -> dict[str, Any]:
    return {"event": {"outcome": "failure"}, "error": {"message": str(error)}}
