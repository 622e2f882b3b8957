# SPDX-License-Identifier: Apache-2.0
"""A connect() that was asked before is not decided again; its answer never outlives its reasons."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY
from tests.kernel.workshop import Workshop

POLICY = f"""
[[app]]
exe = "recalled"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "recalled-user"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "recalled-user"
user = "{NOBODY}"
ports = ["8087"]
actions = ["log", "block"]

[[app]]
exe = "recalled-answer"
ports = ["8095"]
actions = ["log", "block"]

[[app]]
cmdline = "{{wrapper}}"
ports = ["8086"]
actions = ["log", "block"]

[global]
unconfigured_actions = ["log", "block"]
"""

# The first claims a slot, the second leaves its question there, later ones are recalled.
TIMES = 5

# The peer's port is not one of the rule's: only an answer may go there.
ANSWER = f"""
import socket
mine, peer = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
mine.bind(("{REMOTE4}", 8095))
peer.bind(("{REMOTE4}", 9999))
peer.sendto(b"x", ("{REMOTE4}", 8095))
mine.recvfrom(9)
for _ in range({TIMES}):
    mine.sendto(b"x", ("{REMOTE4}", 9999))
for _ in range({TIMES}):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("{REMOTE4}", 9999))
        print("connected")
    except PermissionError:
        print("refused")
"""


@dataclass(frozen=True)
class Governed:
    """An agent, its policy, and the script that a rule's ``cmdline`` names."""

    agent: Agent
    policy: PolicyFile
    text: str
    wrapper: Path


@pytest.fixture(scope="module")
def governed(agents: Agents, workshop: Workshop) -> Governed:
    # No subshell: each would be a process that nothing is known of from before.
    line = "for i in 1 2 3 4 5; do true 2>/dev/null <>/dev/tcp/$1/8086 && echo OK || echo no; done"
    wrapper = workshop.script("recalled-wrapper", f"#!/bin/bash\n{line}\n")
    text = POLICY.format(wrapper=wrapper)
    return Governed(*agents.share(text), text, wrapper)


def tried(talk: Talk, port: int, form: str = "udp-connect") -> set[bool]:
    return {talk.reaches(form, REMOTE4, port) for _ in range(TIMES)}


@pytest.mark.parametrize("form", ["udp-connect", "tcp"])
def test_a_reload_is_in_force_for_what_is_well_known(
    form: str, governed: Governed, servers: Servers, workshop: Workshop, programs: Programs
) -> None:
    """And the way back: neither policy's answers are given under the other."""
    agent, policy, text = governed.agent, governed.policy, governed.text
    servers.open(8086)
    talk = programs.talk(workshop.install("recalled"))
    for _ in range(2):
        assert tried(talk, 8086, form) == {True}
        policy.replace(text.replace('exe = "recalled"\nports = ["8086"]', 'exe = "recalled"'))
        assert "aegis: reloaded" in agent.reload()
        assert tried(talk, 8086, form) == {False}
        policy.replace(text)
        assert "aegis: reloaded" in agent.reload()


def test_another_user_of_the_same_program_has_answers_of_their_own(
    governed: Governed, servers: Servers, workshop: Workshop, programs: Programs
) -> None:
    """One flow of one file; which rule it falls under is asked at each connect()."""
    servers.open(8086, 8087)
    program = workshop.install("recalled-user")
    root, nobody = programs.talk(program), programs.talk(program, user=NOBODY)
    for _ in range(2):
        assert (tried(root, 8086), tried(nobody, 8086)) == ({True}, {False})
        assert (tried(root, 8087), tried(nobody, 8087)) == ({False}, {True})


def test_what_may_be_answered_may_not_be_connected_to(
    governed: Governed, workshop: Workshop, programs: Programs
) -> None:
    """sendto() to who spoke first is allowed, however often, and says nothing of connect()."""
    program = workshop.install("recalled-answer", "/usr/bin/python3")
    outcome = programs.run(program, "-c", ANSWER)
    assert outcome.stdout.split() == ["refused"] * TIMES, outcome.stderr


def test_a_false_first_argument_does_not_get_the_answers_of_a_true_one(
    governed: Governed, servers: Servers, programs: Programs
) -> None:
    """The same interpreter, the same rule and the same flow: only the claim differs."""
    servers.open(8086)
    wrapper = governed.wrapper
    assert programs.run(wrapper, REMOTE4).stdout.split() == ["OK"] * TIMES
    lie = f'exec -a {wrapper} bash -c "$(tail -n 1 {wrapper})" bash {REMOTE4}'
    assert programs.run("/bin/bash", "-c", lie).stdout.split() == ["no"] * TIMES
    assert programs.run(wrapper, REMOTE4).stdout.split() == ["OK"] * TIMES


def test_recalled_ones_are_counted_like_any_other(
    governed: Governed, workshop: Workshop, programs: Programs
) -> None:
    """By the counters and in history, to the last one, also from several CPUs at once."""
    agent = governed.agent
    before = agent.status()
    command = ["flood", REMOTE4, "8086", "20000", "4"]
    outcome = programs.run(workshop.install("recalled"), *command)
    assert '"allowed": 20000' in outcome.stdout
    after = agent.status()
    for name in ("decided", "allowed", "quiet"):
        assert after["counters"][name] - before["counters"][name] >= 20000
    lost = after["counters"]["history_lost"]
    assert after["counters"]["decided"] == sum(after["history"].values()) + lost
