# SPDX-License-Identifier: Apache-2.0
"""Enforcement outlives the agent; only ``unload`` ends it."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, aegis, field
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.conftest import StartAgent
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""


@pytest.fixture(autouse=True)
def served(servers: Servers) -> None:
    servers.open(8086, 8087)


@pytest.fixture
def talk(workshop: Workshop, programs: Programs) -> Talk:
    """Started before the agent of the test, and judged by it all the same."""
    talk = programs.talk(workshop.install("restricted"))
    assert talk.reaches("tcp", "127.0.0.1", 8087)
    return talk


def is_enforced(talk: Talk) -> bool:
    """Whether POLICY is in force for a running program."""
    assert talk.reaches("tcp", "127.0.0.1", 8086)
    return not talk.reaches("tcp", "127.0.0.1", 8087)


def attached(scratch: ScratchCgroup) -> str:
    """What bpftool says is attached where the agent attaches."""
    place = scratch.path.parent if AT_ROOT else scratch.path
    command = ["bpftool", "cgroup", "show", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def flooding(programs: Programs, program: Path, port: int, answers: list[str]) -> Iterator[None]:
    """*program* connects to *port* as fast as it can, while the block lasts."""
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set() or not answers:
            command = ["flood", "127.0.0.1", str(port), "20000", "2"]
            answers.append(programs.run(program, *command).stdout)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_program_older_than_the_agent_is_governed_and_flagged(
    talk: Talk, start_agent: StartAgent
) -> None:
    """What runs already is read from the live process: ``seeded``."""
    agent, policy = start_agent(POLICY)
    since = agent.mark()
    assert is_enforced(talk)
    [event] = agent.settled_events(since, process__pid=talk.pid)
    assert "seeded" in field(event, "aegis.identity")
    assert field(event, "rule.name") == policy.rule('exe = "restricted"')


def test_a_program_younger_than_the_agent_is_not_flagged(
    start_agent: StartAgent, workshop: Workshop, programs: Programs
) -> None:
    """``seeded`` is said only of those whose exec was not seen."""
    agent, _ = start_agent(POLICY)
    outcome = programs.run(workshop.install("restricted"), "tcp", "127.0.0.1", "8087")
    [event] = agent.settled_events(process__pid=outcome.pid)
    assert "seeded" not in field(event, "aegis.identity")


def change_to_8087(agent: Agent, by: str) -> None:
    begin = len(agent.stderr())
    if by == "SIGHUP":
        agent.send_signal(signal.SIGHUP)
        agent.wait_stderr("reload", begin)
    else:
        finished = agent.command("reload")
        assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("by", ["SIGHUP", "command"])
def test_reload_puts_the_new_policy_in_force(
    by: str, talk: Talk, start_agent: StartAgent, workshop: Workshop, programs: Programs
) -> None:
    """For running programs and for new ones, with the generation in the event."""
    agent, policy = start_agent(POLICY)
    assert is_enforced(talk)
    policy.replace(POLICY.replace("8086", "8087"))
    before = field(agent.settled_events(process__pid=talk.pid)[-1], "aegis.generation")
    change_to_8087(agent, by)
    assert not is_enforced_backwards(talk)
    outcome = programs.run(workshop.install("restricted"), "tcp", "127.0.0.1", "8086")
    assert outcome.word == "EPERM"
    after = field(agent.settled_events(process__pid=outcome.pid)[-1], "aegis.generation")
    assert after > before


def is_enforced_backwards(talk: Talk) -> bool:
    """Whether 8086 is still open and 8087 still closed."""
    return talk.reaches("tcp", "127.0.0.1", 8086) or not talk.reaches("tcp", "127.0.0.1", 8087)


BROKEN = [
    pytest.param(POLICY.replace("ports", "prots"), "prots", id="misspelt-key"),
    pytest.param(POLICY.replace('"8086"', "8086"), "8086", id="number-for-string"),
    pytest.param(POLICY + "[[app\n", "aegis.toml", id="not-toml"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_a_broken_policy_leaves_the_old_one_in_force(
    text: str, said: str, talk: Talk, start_agent: StartAgent
) -> None:
    """Exit code not 0, the place of the mistake, and nothing changes; then it recovers."""
    agent, policy = start_agent(POLICY)
    policy.replace(text)
    finished = agent.command("reload")
    assert finished.returncode != 0
    assert f"{policy.path}:" in finished.stderr + finished.stdout
    assert said in finished.stderr + finished.stdout
    assert is_enforced(talk)
    policy.replace(POLICY.replace("8086", "8087"))
    assert agent.command("reload").returncode == 0
    assert not is_enforced_backwards(talk)


def test_a_policy_others_can_write_to_is_not_put_in_force(
    talk: Talk, start_agent: StartAgent
) -> None:
    """The trust check names the path; the policy in force stays."""
    agent, policy = start_agent(POLICY)
    policy.replace(POLICY.replace("8086", "8087"))
    policy.path.chmod(0o666)
    finished = agent.command("reload")
    assert finished.returncode != 0
    assert str(policy.path) in finished.stderr + finished.stdout
    assert is_enforced(talk)


def test_no_verdict_is_wrong_while_policies_are_exchanged(
    start_agent: StartAgent, workshop: Workshop, programs: Programs
) -> None:
    """Ten reloads under fire: what is allowed by both is never refused, nor the reverse."""
    agent, policy = start_agent(POLICY.replace("detent = 0", ""))
    allowed: list[str] = []
    refused: list[str] = []
    restricted = workshop.install("restricted")
    with (
        flooding(programs, restricted, 8086, allowed),
        flooding(programs, restricted, 8087, refused),
    ):
        for number in range(10):
            policy.replace(POLICY.replace('["8086"', f'["{9000 + number}", "8086"'))
            assert agent.command("reload").returncode == 0
    assert all('"refused": 0, "failed": 0' in answer for answer in allowed), allowed
    assert all('"allowed": 0,' in answer for answer in refused), refused


def test_sigterm_stops_the_agent_and_not_the_enforcement(
    talk: Talk, start_agent: StartAgent, workshop: Workshop, programs: Programs
) -> None:
    """Stopping is not unloading: for programs that run and for new ones."""
    agent, _ = start_agent(POLICY)
    assert agent.stop() == 0
    assert is_enforced(talk)
    outcome = programs.run(workshop.install("restricted"), "tcp", "127.0.0.1", "8087")
    assert outcome.word == "EPERM"


def test_an_agent_killed_is_adopted_by_the_next_without_a_gap(
    talk: Talk, start_agent: StartAgent, workshop: Workshop, programs: Programs
) -> None:
    """SIGKILL, then a new agent: not one connection slips through, and events flow again."""
    agent, _ = start_agent(POLICY)
    answers: list[str] = []
    with flooding(programs, workshop.install("restricted"), 8087, answers):
        agent.stop(signal.SIGKILL)
        assert is_enforced(talk)
        agent.start()
    assert all('"allowed": 0,' in answer for answer in answers), answers
    since = agent.mark()
    assert is_enforced(talk)
    assert len(agent.settled_events(since, process__pid=talk.pid)) == 1


def test_a_program_started_while_no_agent_ran_is_known_exactly(
    start_agent: StartAgent, workshop: Workshop, programs: Programs
) -> None:
    """Identity is taken by the kernel at exec, agent or not: nothing is ``seeded``."""
    agent, _ = start_agent(POLICY)
    agent.stop(signal.SIGKILL)
    talk = programs.talk(workshop.install("restricted"))
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    agent.start()
    since = agent.mark()
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    [event] = agent.settled_events(since, process__pid=talk.pid)
    assert "seeded" not in field(event, "aegis.identity")


def test_counters_survive_the_agent(
    talk: Talk, start_agent: StartAgent, workshop: Workshop
) -> None:
    """What was decided while nobody listened is counted, and lost events are counted too."""
    agent, _ = start_agent(POLICY)
    before = agent.counters()
    agent.stop(signal.SIGKILL)
    assert is_enforced(talk)
    agent.start()
    after = agent.counters()
    assert after["blocked"] - before["blocked"] >= 1
    outcomes = ("emitted", "suppressed", "lost", "quiet")
    assert after["decided"] == sum(after[name] for name in outcomes)


def test_unload_ends_it_while_the_agent_runs(
    talk: Talk, start_agent: StartAgent, scratch: ScratchCgroup
) -> None:
    """After ``unload`` a fresh connection works and nothing of ours is attached."""
    agent, _ = start_agent(POLICY)
    assert is_enforced(talk)
    assert "aegis" in attached(scratch)
    finished = agent.command("unload")
    assert finished.returncode == 0, finished.stderr
    assert not is_enforced(talk)
    assert "aegis" not in attached(scratch)


def test_unload_ends_it_without_an_agent(
    talk: Talk, start_agent: StartAgent, scratch: ScratchCgroup
) -> None:
    """What a killed agent left behind is taken out by the command alone; again is fine."""
    agent, _ = start_agent(POLICY)
    agent.stop(signal.SIGKILL)
    assert is_enforced(talk)
    for _ in range(2):
        finished = agent.command("unload")
        assert finished.returncode == 0, finished.stderr
    assert not is_enforced(talk)
    assert "aegis" not in attached(scratch)


def test_unload_on_exit_leaves_nothing(
    talk: Talk, start_agent: StartAgent, scratch: ScratchCgroup
) -> None:
    """``run --unload-on-exit`` is for trying out: gone with the agent."""
    agent, _ = start_agent(POLICY, "--unload-on-exit")
    assert is_enforced(talk)
    assert agent.stop() == 0
    assert not is_enforced(talk)
    assert "aegis" not in attached(scratch)


def test_status_without_an_agent_says_so(scratch: ScratchCgroup) -> None:
    """Not loaded is an answer and not a traceback."""
    finished = aegis("status", cgroup=scratch.path)
    assert "Traceback" not in finished.stderr
    assert finished.returncode != 0


@pytest.mark.parametrize(
    ("flag", "mode", "enforced"), [("--observe", "enforce", False), ("--enforce", "observe", True)]
)
def test_a_flag_overrides_the_mode_of_the_file(
    flag: str, mode: str, enforced: bool, talk: Talk, start_agent: StartAgent
) -> None:
    """Also after a reload: the administrator's word at start outlives the file's."""
    agent, _ = start_agent(POLICY.replace("detent", f'mode = "{mode}"\ndetent'), flag)
    assert is_enforced(talk) is enforced
    assert agent.command("reload").returncode == 0
    assert is_enforced(talk) is enforced
