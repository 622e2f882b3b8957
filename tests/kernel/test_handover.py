# SPDX-License-Identifier: Apache-2.0
"""One program becomes another, or its file another file, while it connects."""

import shutil
from pathlib import Path

import pytest

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.flooding import flooding
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 86400
unconfigured_actions = ["log"]
default_actions = ["log", "block"]

[[app]]
exe = "racer"
ports = ["8087"]

[[app]]
exe = "racer-after"
ports = ["8086"]

[[app]]
path = "{bin}/upgraded"
ports = ["8086"]
"""

UPGRADES = 200
RACES = 200 if AT_ROOT else 2000


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents, workshop: Workshop) -> Agent:
    servers.open(8086, 8087)
    started, _ = agents.share(POLICY.format(bin=workshop.bin))
    return started


@pytest.fixture(scope="module")
def racer(agent: Agent, workshop: Workshop) -> Path:
    workshop.install("racer-after")
    return workshop.install("racer")


def test_both_racers_have_their_own_port(racer: Path, programs: Programs) -> None:
    """The right case: what the race tries to mix up is kept apart."""
    for name, port in (("racer", "8087"), ("racer-after", "8086")):
        program = racer.with_name(name)
        assert programs.run(program, "tcp", "127.0.0.1", port).word == "OK"
        assert programs.run(program, "tcp", "127.0.0.1", port, "1").word == "OK"


def test_an_exec_during_a_connect_lends_nobody_a_name(racer: Path, programs: Programs) -> None:
    """Threads of the old program connect until the last moment: never as the new one."""
    outcome = programs.run(racer, "exec-race", "127.0.0.1", "8086", str(RACES), "8087")
    words = outcome.stdout.split()
    assert len(words) == RACES, outcome.stderr
    assert set(words) == {"EPERM"}


def test_an_upgrade_under_traffic_leaves_no_gap(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """200 times another file by rename: governed from its first exec, and the old one still."""
    program, new = workshop.install("upgraded"), workshop.bin / "upgraded.dpkg-new"
    answers: list[str] = []
    asked = "tcp 127.0.0.1 8086\ntcp 127.0.0.1 8087\n"
    with flooding(programs, program, 8087, answers):
        for _ in range(UPGRADES):
            shutil.copy(workshop.prober, new)
            new.rename(program)
            assert programs.run(program, "-", stdin=asked).stdout == "OK\nEPERM\n"
    assert answers
    assert all('"allowed": 0,' in answer for answer in answers), answers
