# SPDX-License-Identifier: Apache-2.0
"""``tamper_guard`` where the BPF LSM is not active: not carried out, which is said, and no more."""

from aegis.bpf.guard import GUARD
from aegis.bpf.tiers import LSM, NAMES, lacking_lsm
from tests.kernel.agent import aegis, field
from tests.kernel.conftest import Agents
from tests.kernel.test_evidence import POLICY as RULES

POLICY = "[global]\ntamper_guard = true\n" + RULES


def test_what_cannot_be_carried_out_is_said_and_never_a_failed_start(
    agents: Agents,
) -> None:
    """By the agent, its log, status (exit code 1), its coverage, and check; and not if it can."""
    agent, policy = agents.start(POLICY)
    finished = agent.command("status", "--coverage")
    lacks = finished.returncode == 1
    said = "tamper_guard is not carried out: "
    assert (f"problem: degraded: {said}" in finished.stdout) is lacks
    assert (f"aegis: {said}" in agent.stderr()) is lacks
    told = [field(event, "message") for event in agent.events() if said in str(event)]
    assert len(told) == lacks
    checked = aegis("check", "--offline", "-c", str(policy.path))
    assert checked.returncode == 0
    # Nothing is tried for it: it may say less.
    assert ("cannot be carried out on this host" in checked.stdout) is bool(lacking_lsm())
    text = agent.command("status").stdout
    tiers = {name: f"{name:<17}active" in text for name in NAMES}
    assert tiers[GUARD] is not lacks
    assert tiers[GUARD] == tiers[LSM], "it needs what the other one needs"


def test_unasked_nothing_is_said(agents: Agents) -> None:
    agent, _ = agents.start(POLICY.replace("true", "false"))
    finished = agent.command("status")
    assert finished.returncode == 0, finished.stdout
    assert "guard            not active: not asked for" in finished.stdout
    assert "tamper_guard" not in agent.stderr()
