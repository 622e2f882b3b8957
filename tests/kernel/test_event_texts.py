# SPDX-License-Identifier: Apache-2.0
"""Path and arguments arrive whole, whether the event is a short one or not."""

import shutil

import pytest

from aegis._bpf import lib
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "t"
ports = ["8086"]
detent = 0
actions = ["log", "block"]
"""
SHORT_PATH, SHORT_CMDLINE = lib.AEGIS_SHORT_PATH - 1, lib.AEGIS_SHORT_CMDLINE
TIMES = 2  # a record must not show an older one's bytes


@pytest.fixture(scope="module")
def agent(agents: Agents) -> Agent:
    started, _ = agents.share(POLICY)
    return started


@pytest.mark.parametrize("path", [SHORT_PATH - 1, SHORT_PATH, SHORT_PATH + 1, 250])
@pytest.mark.parametrize("cmdline", [SHORT_CMDLINE - 1, SHORT_CMDLINE, SHORT_CMDLINE + 1, 500])
def test_texts_of_any_length_arrive_whole(
    path: int, cmdline: int, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """*path* is its length, *cmdline* that of all arguments with the NUL after each."""
    folder = workshop.bin / ("d" * (path - len(str(workshop.bin)) - len("//t")))
    folder.mkdir(exist_ok=True)
    program = folder / "t"
    if not program.exists():
        shutil.copy("/bin/bash", program)
    assert len(str(program)) == path
    begin = "exec 3<>/dev/udp/127.0.0.1/9; exit; #"
    words = ("name", "-c", begin + "x" * (cmdline - len(begin) - len("name0-c00")))
    since = agent.mark()
    for _ in range(TIMES):
        programs.run("/bin/bash", "-c", 'exec -a "$0" "$@"', words[0], program, *words[1:])
    found = agent.settled_events(since, process__name="t")
    assert [field(event, "process.executable") for event in found] == [str(program)] * TIMES
    assert [field(event, "process.args") for event in found] == [list(words)] * TIMES
