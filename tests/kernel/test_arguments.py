# SPDX-License-Identifier: Apache-2.0
"""The words of an allowed command line are no passport: whoever runs a program chooses them.

The unconfigured are blocked here, so whoever reaches 8086 has passed for a program with a rule.
"""

from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0
unconfigured_actions = ["log", "block"]
default_actions = ["log", "block"]

[[app]]
cmdline = "{bin}/wrapper"
ports = ["8086"]

[[app]]
cmdline = "called tcp"
ports = ["8086"]

[[app]]
cmdline = "{bin}/caller tcp"
ports = ["8086"]
"""

CONNECT = "exec 3<>/dev/tcp/127.0.0.1/8086"
TCP = ("tcp", "127.0.0.1", "8086")


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents, workshop: Workshop) -> Agent:
    servers.open(8086)
    workshop.script("wrapper", f"#!/bin/bash\n{CONNECT}\n")
    workshop.install("called")
    (workshop.bin / "caller").symlink_to("called")
    started, _ = agents.share(POLICY.format(bin=workshop.bin))
    return started


def test_the_wrapper_itself_may(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """The right case, as root and as anyone."""
    for user in (None, NOBODY):
        outcome = programs.run(workshop.bin / "wrapper", user=user)
        assert outcome.code == 0, outcome.stderr


def test_an_interpreter_with_the_wrappers_words_may_not(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """bash is root's, and trusted: but it was not executed as its first argument says."""
    since = agent.mark()
    line = f"exec -a '{workshop.bin}/wrapper' bash -c '{CONNECT}'"
    outcome = programs.run("bash", "-c", line, user=NOBODY)
    assert outcome.code != 0
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "aegis.reason") == "untrusted"
    assert field(event, "process.command_line").startswith(f"{workshop.bin}/wrapper -c")
    assert "argv0-false" in field(event, "aegis.identity")


@pytest.mark.parametrize("length", [1, 100, 300])
def test_words_that_begin_alike_are_other_words(
    length: int, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Neither the head of what was executed nor more than it."""
    since = agent.mark()
    name = str(workshop.bin / "called")
    for argv0 in (name[:-1], f"{name}{'x' * length}", f"x/{Path(name).name}", ""):
        line = f"exec -a '{argv0}' \"$@\""
        outcome = programs.run("bash", "-c", line, "bash", name, *TCP)
        [event] = agent.settled_events(since, process__pid=outcome.pid)
        assert "argv0-false" in field(event, "aegis.identity")


def test_a_program_is_called_by_its_path_its_name_or_a_link(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """What a shell, systemd and execvp() put there is honest."""
    folder = workshop.bin
    assert programs.run("env", f"PATH={folder}", "called", *TCP).word == "OK"
    assert programs.run(folder / "caller", *TCP).word == "OK"
    since = agent.mark()
    outcome = programs.run(folder / "called", *TCP)  # no rule has these words
    assert outcome.word == "EPERM"
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert "argv0-false" not in field(event, "aegis.identity")
