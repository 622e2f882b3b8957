# SPDX-License-Identifier: Apache-2.0
"""History's file locked, on a full disk, damaged: nothing of what is decided meanwhile is lost."""

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.settings import PATIENCE
from tests.kernel.test_history import facts_of, flood
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "kept-in-history"
ports = ["8086"]
actions = ["log", "block"]
"""
FLOWS = 20
ROOM = 256 * 1024  # of a disk that fills up


@pytest.fixture
def disk(workshop: Workshop) -> Iterator[Path]:
    """A small file system of its own."""
    folder = workshop.new_folder()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def agent(agents: Agents, disk: Path) -> Iterator[Agent]:
    started, _ = agents.start(POLICY, "--history", str(disk / "history.db"))
    started.history = disk / "history.db"
    yield started
    agents.close()


class Decisions:
    """A program that is refused FLOWS flows, each time others."""

    def __init__(self, workshop: Workshop, programs: Programs) -> None:
        self._program = workshop.install("kept-in-history")
        self._programs = programs
        self.made = 0

    def make(self) -> None:
        flood(self._programs, self._program, FLOWS, FLOWS, first=100 + self.made)
        self.made += FLOWS


@pytest.fixture
def decisions(workshop: Workshop, programs: Programs) -> Decisions:
    return Decisions(workshop, programs)


def kept(agent: Agent) -> int:
    """Decisions of our program in the file."""
    return sum(fact.decisions for fact in facts_of(agent, "kept-in-history"))


def told(agent: Agent, since: int, kind: str, patience: float = 3 * PATIENCE) -> Event:
    """The one notice of this kind; sqlite waits for a lock, and the agent between tries."""
    deadline = time.monotonic() + patience
    while True:
        found = [e for e in agent.events(since) if field(e, "aegis.notice") == kind]
        if found or time.monotonic() > deadline:
            [notice] = found
            return notice
        time.sleep(0.05)


def tell_once(agent: Agent, since: int, fails: Callable[[], None], works: Callable[[], None],
              decisions: Decisions) -> Event:  # fmt: skip
    """While it fails and after: told once each, and all decisions are in the file in the end."""
    decisions.make()
    assert kept(agent) == decisions.made
    fails()
    decisions.make()
    failed = told(agent, since, "history-failed")
    decisions.make()
    assert "history" in agent.status()["agent"]["history"]["error"]
    works()
    told(agent, since, "history-restored")
    assert kept(agent) == decisions.made
    assert agent.status()["agent"]["history"]["error"] is None
    return failed


def test_a_lock_somebody_else_holds(agent: Agent, decisions: Decisions) -> None:
    """A backup, or an administrator's sqlite3 in the middle of a transaction."""
    with closing(sqlite3.connect(agent.history, isolation_level=None)) as db:
        failed = tell_once(
            agent,
            agent.mark(),
            lambda: db.execute("BEGIN IMMEDIATE").close(),
            lambda: db.execute("ROLLBACK").close(),
            decisions,
        )
    assert "database is locked" in failed["message"]


def test_a_full_disk(agent: Agent, decisions: Decisions) -> None:
    ballast = agent.history.with_name("ballast")

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    failed = tell_once(agent, agent.mark(), fill, ballast.unlink, decisions)
    assert "full" in failed["message"] or "disk I/O error" in failed["message"]


def test_a_damaged_file_is_kept_and_another_begun(agent: Agent, decisions: Decisions) -> None:
    """Or every fact would be lost once the kernel's table is full. What is decided later is in."""
    decisions.make()
    assert kept(agent) == FLOWS
    since = agent.mark()
    with closing(sqlite3.connect(agent.history)) as db:  # out of the log of what is new
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with agent.history.open("r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        file.write(b"\xa5" * size)
    decisions.make()
    failed = told(agent, since, "history-damaged")
    aside = agent.history.with_name("history.db.damaged")
    assert str(aside) in failed["message"] and aside.stat().st_size == size
    told(agent, since, "history-restored")
    assert kept(agent) == FLOWS
    assert agent.history.stat().st_mode & 0o777 == 0o600
