# SPDX-License-Identifier: Apache-2.0
"""History: every decision is in it once, told or quiet, whatever became of the event."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from aegis._bpf import lib
from aegis.bpf.generation import index_key
from aegis.bpf.maps import Map
from aegis.bpf.object import open_map
from aegis.bpf.pins import Pins
from aegis.events.facts import Fact
from aegis.events.history import History, Totals
from tests.kernel.agent import Agent, aegis
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.settings import AT_ROOT, NOBODY, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "flood-for-history"
ports = ["8086"]
detent = 0
actions = ["log", "block"]

[[app]]
exe = "quiet-for-history"
ports = ["1-65535"]
actions = ["log", "block"]

[[app]]
exe = "owned-for-history"
ports = ["1-65535"]
untrusted_file = true
actions = ["log", "block"]
"""

RING_EVENTS = lib.AEGIS_RING_BYTES // (lib.AEGIS_SHORT_EVENT + 8)  # and its header


@pytest.fixture
def agent(agents: Agents) -> Iterator[Agent]:
    started, _ = agents.start(POLICY)
    yield started
    agents.close()


def flood(
    programs: Programs,
    program: object,
    count: int,
    spread: int,
    *,
    first: int = 1,
    threads: int = 1,
) -> None:
    command = ["flood", "127.0.0.1", str(first), str(count), str(threads), str(spread)]
    outcome = programs.run(str(program), *command, patience=10 * PATIENCE)
    assert json.loads(outcome.stdout)["failed"] == 0, outcome


def recorded(agent: Agent) -> tuple[list[Fact], Totals]:
    """What is in the file once everything decided before this call is."""
    finished = aegis("events", "--summary", "--history", agent.history)
    assert finished.returncode == 0, finished.stderr
    with closing(History(agent.history, read_only=True)) as history:
        return list(history.facts()), history.totals()


def facts_of(agent: Agent, name: str) -> list[Fact]:
    return [fact for fact in recorded(agent)[0] if fact.program.name == name]


def assert_balanced(agent: Agent) -> None:
    """decided = in the file + in the kernel + counted as lost; and the file agrees with itself."""
    _, totals = recorded(agent)
    status = agent.status()
    kept, counters = status["history"], status["counters"]
    if AT_ROOT:  # the host's other programs are decided about meanwhile
        return
    assert counters["decided"] == kept["taken"] + kept["pending"] + counters["history_lost"]
    assert totals.taken == kept["taken"] == totals.decisions + totals.forgotten


def test_what_is_quiet_is_in_history(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """A connection on the map raises no event; that it was made is known all the same."""
    quiet, since = workshop.install("quiet-for-history"), agent.mark()
    outcome = programs.run(quiet, "tcp", "127.0.0.1", "9", "3")
    assert outcome.stdout.split() == ["ECONNREFUSED"] * 3
    assert agent.settled_events(since, process__pid=outcome.pid) == []
    [fact] = facts_of(agent, "quiet-for-history")
    assert (fact.program.path, fact.program.trusted) == (str(quiet), True)
    assert (str(fact.address), fact.port, fact.protocol) == ("127.0.0.1", 9, 6)
    assert (fact.verdict.value, fact.decisions, fact.reports) == ("allowed", 3, 0)
    assert_balanced(agent)


def test_one_path_with_another_owner_is_another_program(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """What a stranger's file did must not be learnt as the trusted program's."""
    owned = workshop.install("owned-for-history")
    programs.run(owned, "tcp", "127.0.0.1", "9")
    os.chown(owned, NOBODY, NOBODY)
    programs.run(owned, "tcp", "127.0.0.1", "9")
    os.chown(owned, 0, 0)
    facts = facts_of(agent, "owned-for-history")
    assert sorted(fact.program.trusted for fact in facts) == [False, True]
    assert [fact.decisions for fact in facts] == [1, 1]


def test_a_program_executed_by_another_has_facts_of_its_own(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """One process, two programs: each connection is of the one that made it."""
    first = workshop.install("first-for-history", shutil.which("bash"))
    second = workshop.install("quiet-for-history")
    script = f"exec 3<>/dev/udp/127.0.0.1/9 && exec {second} tcp 127.0.0.1 9"
    assert programs.run(first, "-c", script).word == "ECONNREFUSED"
    assert {fact.protocol for fact in facts_of(agent, first.name)} == {17}
    assert {fact.protocol for fact in facts_of(agent, second.name)} == {6}


def test_epoch_after_epoch_adds_up(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """Each time the sums are taken out the next ones begin; a flow stays one row."""
    noisy = workshop.install("flood-for-history")
    for times in range(1, 5):
        flood(programs, noisy, 100, 10)
        assert {fact.decisions for fact in facts_of(agent, noisy.name)} == {10 * times}
    assert_balanced(agent)


def test_a_full_ring_loses_events_and_no_fact(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """With the agent stopped each destination over the ring's room is an event lost, and a fact."""
    count = 2 * RING_EVENTS
    before = agent.counters()
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        flood(programs, workshop.install("flood-for-history"), count, count, first=10000)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    facts = facts_of(agent, "flood-for-history")
    after = agent.counters()
    assert after["lost"] - before["lost"] >= count - RING_EVENTS
    assert after["history_lost"] == before["history_lost"]
    assert sorted(fact.port for fact in facts) == list(range(10000, 10000 + count))
    assert {(fact.decisions, fact.reports, str(fact.verdict)) for fact in facts} == {
        (1, 1, "blocked")
    }
    assert_balanced(agent)


def test_decisions_without_an_agent_are_taken_by_the_next(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Killed with SIGKILL while a flood runs: not one is missing, none is there twice."""
    noisy = workshop.install("flood-for-history")
    flood(programs, noisy, 3200, 100, threads=8)
    agent.stop(signal.SIGKILL)
    flood(programs, noisy, 3200, 100, threads=8)
    agent.start()
    flood(programs, noisy, 3200, 100, threads=8)
    assert {fact.decisions for fact in facts_of(agent, "flood-for-history")} == {96}
    assert_balanced(agent)


def test_who_sprays_destinations_pays_with_their_detail_alone(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """More flows at once than there is room for: each is a fact, and another's have their ends."""
    sprayed, others = 60_000, lib.AEGIS_HISTORY_SHARE
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        flood(programs, workshop.install("quiet-for-history"), sprayed, sprayed)
        flood(programs, workshop.install("flood-for-history"), others, others, first=10000)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    notice = agent.wait_event(aegis__notice="history-folded")
    counters = agent.counters()
    assert counters["history_lost"] == 0
    facts = facts_of(agent, "quiet-for-history")
    [rest] = [fact for fact in facts if fact.anywhere]
    assert rest.decisions == counters["history_folded"] == notice["aegis"]["lost"]
    room = lib.AEGIS_HISTORY_FREE + lib.AEGIS_HISTORY_SHARE
    assert len(facts) - 1 == sprayed - rest.decisions <= room
    assert sum(fact.decisions for fact in facts) == sprayed
    facts = facts_of(agent, "flood-for-history")
    assert sorted(fact.port for fact in facts) == list(range(10000, 10000 + others))
    assert_balanced(agent)


def test_a_full_table_is_counted_and_told(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Not even room for what is left when destinations are not told apart."""
    flows, room = 10_000, lib.AEGIS_HISTORY_SHARE  # in slots
    with pinned(agent, "history_fill") as fill:
        os.kill(agent.pid, signal.SIGSTOP)
        try:
            for parity in range(2):
                fill.put(index_key(parity), index_key(lib.AEGIS_HISTORY_MAX))
            flood(programs, workshop.install("flood-for-history"), flows, flows)
        finally:
            os.kill(agent.pid, signal.SIGCONT)
    assert agent.wait_event(aegis__notice="history-lost")
    lost = agent.counters()["history_lost"]
    assert flows - room <= lost <= flows - room // 2
    assert_balanced(agent)


@contextmanager
def pinned(agent: Agent, name: str) -> Iterator[Map]:
    """The map of that name of *agent*."""
    pins = Pins(agent.status()["instance"])
    fd = pins.open(pins.map_path(name))
    try:
        yield open_map(name, fd)
    finally:
        os.close(fd)


def test_the_bound_on_rows_holds_and_is_paid_by_the_program_with_the_most(
    agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """A flood of destinations pushes its own older rows out, not another program's."""
    agent, _ = agents.start("[global]\nhistory_rows = 1000\n" + POLICY)
    programs.run(workshop.install("quiet-for-history"), "tcp", "127.0.0.1", "9")
    flood(programs, workshop.install("flood-for-history"), 5000, 5000)
    facts, totals = recorded(agent)
    assert totals.rows <= 1000 and totals.forgotten_rows >= 4000
    assert "quiet-for-history" in {fact.program.name for fact in facts}
    assert_balanced(agent)
    agents.close()


def test_unload_keeps_what_no_agent_took(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Nobody runs: the kernel alone knows of it, until it is asked to forget."""
    agent.stop()
    flood(programs, workshop.install("quiet-for-history"), 500, 5)
    finished = agent.command("unload", "--history", agent.history)
    assert finished.returncode == 0, finished.stderr
    with closing(History(agent.history, read_only=True)) as history:
        facts = [fact for fact in history.facts() if fact.program.name == "quiet-for-history"]
    assert sum(fact.decisions for fact in facts) == 500 and len(facts) == 5


def test_unload_makes_no_history_and_a_bad_one_does_not_stop_it(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    agent.stop()
    flood(programs, workshop.install("quiet-for-history"), 5, 5)
    agent.history.write_text("no database" * 1000)
    finished = agent.command("unload", "--history", agent.history)
    assert finished.returncode == 0 and "not in history" in finished.stderr
    assert "removed" in finished.stdout
    missing = agent.history.with_name("missing.db")
    assert agent.command("unload", "--history", missing).returncode == 0
    assert not missing.exists()
