# SPDX-License-Identifier: Apache-2.0
"""The event log of a running agent: rotated, failing, and told what is hostile."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "logged"
ports = ["8086"]
actions = ["log", "block"]
"""


@pytest.fixture(scope="module")
def house(agents: Agents) -> Iterator[tuple[Agent, PolicyFile]]:
    yield agents.start(POLICY)
    agents.close()


@pytest.fixture
def agent(house: tuple[Agent, PolicyFile]) -> Agent:
    return house[0]


def logged(*paths: Path) -> list[Event]:
    """Every line of these files; each must be one JSON object in printable ASCII.

    The last may be half written yet.
    """
    texts = [path.read_bytes() for path in paths]
    lines = [line for text in texts for line in text[: text.rfind(b"\n") + 1].splitlines()]
    assert all(line.decode("ascii").isprintable() for line in lines)
    return [json.loads(line) for line in lines]


def wait_logged(event: Event, *paths: Path) -> None:
    """Until that event is in one of the files."""
    deadline = time.monotonic() + PATIENCE
    while event not in logged(*(path for path in paths if path.is_file())):
        assert time.monotonic() < deadline, f"not in {paths}: {event}"
        time.sleep(0.02)


def refused(agent: Agent, workshop: Workshop, programs: Programs) -> Event:
    """The event of one refusal."""
    since = agent.mark()
    outcome = programs.run(workshop.install("logged"), "tcp", "127.0.0.1", "8087")
    assert outcome.word == "EPERM"
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    return event


def test_rotation_needs_no_signal(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """As logrotate does it: moved away, and nobody tells the agent."""
    first = refused(agent, workshop, programs)
    wait_logged(first, agent.log)
    old = agent.log.rename(agent.log.with_name("rotated"))
    second = refused(agent, workshop, programs)
    wait_logged(second, agent.log)
    assert first in logged(old) and second not in logged(old)


def test_a_log_that_fails_costs_no_verdict_and_no_line(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Refusals go on, are told once, and are all in the log when it can be written again."""
    refused(agent, workshop, programs)
    since, old = agent.mark(), agent.log.rename(agent.log.with_name("before"))
    agent.log.mkdir()
    events = [refused(agent, workshop, programs) for _ in range(3)]
    failed = agent.wait_event(since, aegis__notice="log-failed")
    assert "Is a directory" in failed["message"]
    agent.log.rmdir()
    restored = agent.wait_event(since, aegis__notice="log-restored")
    assert field(restored, "aegis.lost") == 0
    wait_logged(events[-1], agent.log)
    assert [event for event in logged(old, agent.log) if event in events] == events
    kinds = [event["aegis"].get("notice") for event in agent.events(since)]
    assert (kinds.count("log-failed"), kinds.count("log-restored")) == (1, 1)


@pytest.mark.parametrize(
    "name",
    [
        "new\nline",
        ") 1 (",
        "\x1b[2J\x1b]0;title\x07",
        "c1 \x9b31m \x85",
        "bidi \u202etxt.exe\u2066",
        "\udcff\udc80",
        "x (deleted)",
        '"quote\\',
    ],
    ids=ascii,
)
def test_a_hostile_program_is_one_line(
    name: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Its name and 2 MiB of the same as arguments: one valid line, whole JSON, no control byte."""
    path = workshop.new_folder() / name / "logged"
    path.parent.mkdir(mode=0o755)
    os.link(workshop.install("bash", shutil.which("bash")), path)
    since = agent.mark()
    # execve() takes at most 128 KiB in one argument.
    texts = [name * (100_000 // len(os.fsencode(name)))] * 20
    outcome = programs.run(path, "-c", "exec 3<>/dev/tcp/127.0.0.1/8087", *texts)
    assert "Operation not permitted" in outcome.stderr, outcome
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    wait_logged(event, agent.log)
    stored = field(event, "aegis.hex.executable")
    shown = field(event, "process.executable")
    assert (bytes.fromhex(stored) if stored else shown.encode()) == os.fsencode(path)
    assert "cmdline-cut" in field(event, "aegis.identity")
