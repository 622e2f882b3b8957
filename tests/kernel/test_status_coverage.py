# SPDX-License-Identifier: Apache-2.0
"""``aegis status`` on what is and is not covered, when something is amiss."""

import os
from collections.abc import Callable

import pytest

from aegis._bpf import lib
from aegis.bpf.pins import Pins
from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents

POLICY = """
[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""


@pytest.fixture
def agent(agents: Agents) -> Agent:
    return agents.start(POLICY)[0]


def detach(pins: Pins, name: str) -> None:
    """As ``bpftool link detach`` does: the pin stays."""
    fd = pins.open(pins.link_path(name))
    try:
        assert lib.aegis_link_detach(fd) == 0
    finally:
        os.close(fd)


def unpin(pins: Pins, name: str) -> None:
    pins.link_path(name).unlink()


def test_status_says_what_is_not_covered(agent: Agent) -> None:
    """Unasked what is missing; asked for, also what is enforced. No rule is about inbound here."""
    short = agent.command("status")
    assert short.returncode == 0, short.stdout
    assert "ICMP echo (ping)" in short.stdout.partition("not seen:")[2]
    assert "TCP and MPTCP connections" not in short.stdout
    full = agent.command("status", "--coverage").stdout
    enforced, _, rest = full.partition("only seen:")
    seen, _, unseen = rest.partition("not seen:")
    assert "TCP and MPTCP connections" in enforced and "who connects and sends" in seen
    covered = agent.status()["tiers"]["lsm"]["active"]
    for what in ("vsock connections", "frames through AF_PACKET"):
        assert what in (enforced if covered else unseen)


@pytest.mark.parametrize("spoil", [detach, unpin], ids=["detached", "unpinned"])
def test_a_hook_that_is_gone_covers_nothing(
    spoil: Callable[[Pins, str], None], agents: Agents, agent: Agent
) -> None:
    """Found by asking the kernel: a pin alone is no proof."""
    before = agent.status()
    assert before["coverage"]["socket"] == "enforced"
    spoil(Pins(before["instance"]), "aegis_socket")
    finished = agent.command("status", "--coverage")
    assert finished.returncode == 1
    assert "problem: aegis_socket is not attached" in finished.stdout
    assert "SCTP, DCCP" in finished.stdout.partition("not seen:")[2]
    agents.close()


def test_observe_mode_is_said(agents: Agents) -> None:
    """What would be enforced is let pass: the heading must not promise more."""
    agent, _ = agents.start('[global]\nmode = "observe"\n' + POLICY)
    text = agent.command("status", "--coverage").stdout
    assert text.startswith("enforced (observe mode: reported, let pass):")


def test_a_link_that_goes_while_somebody_reads_is_no_error(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload takes off what its policy has no use for."""
    names = Pins.names
    gone = {"links": ["aegis_gone"]}
    monkeypatch.setattr(Pins, "names", lambda pins, kind: [*names(pins, kind), *gone.get(kind, [])])
    assert "aegis_gone" not in agent.status()["attached"]
