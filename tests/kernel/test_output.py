# SPDX-License-Identifier: Apache-2.0
"""A running agent whose standard output nobody reads, or nobody has any more."""

import json
import time
from collections.abc import Callable

import pytest

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "unread"
ports = ["8086"]
actions = ["log", "block"]
"""
EVENTS = 3000  # over what a pipe or socket holds and what is kept, as JSON

# Its own standard output's other end is inherited and never read, or closed.
WRAPPER = """
import os, socket, sys
kind = sys.argv[1]
if kind == "socket":
    ours, theirs = (end.detach() for end in socket.socketpair())
else:
    theirs, ours = os.pipe()
os.dup2(ours, 1)
os.close(ours)
os.set_inheritable(theirs, True)
if kind == "gone":
    os.close(theirs)
if kind == "closed":
    os.close(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def logged(agent: Agent, kind: str) -> list[dict[str, object]]:
    """Lines of the log that are events of a program or notices, of this *kind*."""
    text = agent.log.read_text() if agent.log.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # one may be half written yet
    events = [json.loads(line) for line in lines]
    if kind == "event":
        return [e for e in events if "destination" in e and e["process"]["name"] == "unread"]
    return [event for event in events if event["aegis"].get("notice") == kind]


def wait(condition: Callable[[], object], agent: Agent) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, agent.stderr()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "notice"),
    [
        ("pipe", "output-stuck"),
        ("socket", "output-stuck"),
        ("gone", "output-gone"),
        ("closed", "output-gone"),
    ],
)
def test_nobody_reads_and_no_event_waits(
    kind: str, notice: str, agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """Every event is in the log, the agent answers, and what was not shown is told once."""
    wrapper = ("/usr/bin/python3", "-c", WRAPPER, kind)
    agents.close()
    try:
        agent, _ = agents.start(POLICY, wrapper=wrapper)
        program = workshop.install("unread")
        outcome = programs.run(program, "flood", "127.0.0.1", "8087", str(EVENTS), "1")
        assert outcome.code == 0, outcome
        wait(lambda: len(logged(agent, "event")) == EVENTS, agent)
        wait(lambda: logged(agent, notice), agent)
        status = agent.status()["agent"]
        assert status["output"]["lost"] > 0 and status["output"]["error"]
        assert "aegis: nobody reads standard output" in agent.stderr()
        assert len(logged(agent, notice)) == 1
    finally:
        agents.close()
