# SPDX-License-Identifier: Apache-2.0
"""What a boot of ``vmtests.boot`` tells is judged: each law of it can be broken, and is noticed."""

from copy import deepcopy
from typing import Any

import pytest

from vmtests.boot import KINDS, Boot, line, problems

DENIED = {"remote": "denied", "local": "denied", "allowed": "refused"}
OPEN = {"remote": "unreachable", "local": "refused", "allowed": "refused"}
# Kind -> whether rules are in force, what systemd says of the agent, what somebody said.
WELL = {
    "none": (True, "active", "no last good policy: no policy was in force yet"),
    "good": (True, "active", "generation 1 from /var/lib/aegis/last-good"),
    "broken": (True, "activating", "the policy in force before stays in force: generation 1"),
    "damaged": (True, "active", "no last good policy: damaged: its 3 bytes"),
    "off": (False, "inactive", ""),
    "off-file": (False, "inactive", ""),
    "broken-and-none": (False, "activating", "no policy was in force yet"),
}


def told_of(kind: str) -> dict[str, Any]:
    governed, state, said = WELL[kind]
    got = DENIED if governed else OPEN
    return {
        "early": {"up": {"lo": True, "ens3": False}, "got": dict(got)},
        "late": {"up": {"lo": True, "ens3": True}, "got": dict(got)},
        "loaded_at": 3.0 if governed else 0.0,
        "networkd_at": 4.0,
        "link_up_at": 5.0,
        "load_said": [said],
        "agent_said": [],
        "agent": {"ActiveState": state},
        "status": {"generation": 1, "problems": []},
        "status_code": 0 if state == "active" else 1,
    }


def boot(kind: str, told: dict[str, Any], banner: str = "SSH-2.0-OpenSSH_10.0") -> Boot:
    return Boot(kind, told, banner, 60.0)


def put(told: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """*told* with something else at a dotted place."""
    made = deepcopy(told)
    *path, last = place.split(".")
    inner = made
    for key in path:
        inner = inner[key]
    inner[last] = value
    return made


def test_each_kind_of_boot_has_its_report() -> None:
    assert set(WELL) == set(KINDS)


@pytest.mark.parametrize("kind", WELL)
def test_a_boot_that_went_well_has_no_problems(kind: str) -> None:
    done = boot(kind, told_of(kind))
    assert problems(done) == []
    assert line(1, done, []).endswith(": ok")


@pytest.mark.parametrize("told", [{}, {"error": "the guest told nothing more"}, {"early": {}}])
def test_who_tells_nothing_is_wrong(told: dict[str, Any]) -> None:
    [wrong] = problems(boot("good", told))
    assert "told nothing" in wrong


@pytest.mark.parametrize("kind", WELL)
def test_a_host_that_is_not_reached_is_wrong(kind: str) -> None:
    """In each of them: nobody may be locked out."""
    assert problems(boot(kind, told_of(kind), banner="")) == ["its sshd was not reached"]


@pytest.mark.parametrize(("kind", "other"), [("good", "off"), ("off", "good")])
@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("name", ["remote", "local"])
def test_one_connection_that_came_out_otherwise_is_wrong(
    kind: str, other: str, when: str, name: str
) -> None:
    """Let through where rules are to be in force, or refused where none are."""
    got = told_of(other)[when]["got"][name]
    assert problems(boot(kind, put(told_of(kind), f"{when}.got.{name}", got))) == [
        f"{when}: {name} {got}"
    ]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("early.up.ens3", True, "['ens3'] up before the early probe"),
        ("early.got.allowed", "denied", "early: what is allowed was denied"),
        ("late.got.allowed", "denied", "late: what is allowed was denied"),
        ("loaded_at", 0.0, "the rules came after the network"),
        ("loaded_at", 4.5, "the rules came after the network"),
        ("networkd_at", 2.9, "the rules came after the network"),
        ("agent.ActiveState", "failed", "the agent is failed, not active"),
        ("load_said", ["nothing"], "nobody said 'from /var/lib/aegis/last-good'"),
        ("agent_said", ["Traceback (most recent call last):"], "a traceback"),
        ("status_code", 1, "status: []"),
    ],
)
def test_each_law_can_be_broken(place: str, value: object, said: str) -> None:
    assert problems(boot("good", put(told_of("good"), place, value))) == [said]


def test_no_link_is_wrong() -> None:
    """Then it is not known either that the rules were first."""
    wrong = problems(boot("good", put(told_of("good"), "link_up_at", 0.0)))
    assert wrong == ["the rules came after the network", "no link came up"]


@pytest.mark.parametrize("kind", WELL)
def test_an_agent_in_another_state_is_wrong(kind: str) -> None:
    """One that starts again and again is not one that stays off."""
    states = {"active", "activating", "inactive"} - {WELL[kind][1]}
    for state in states:
        wrong = problems(boot(kind, put(told_of(kind), "agent.ActiveState", state)))
        assert wrong == [f"the agent is {state}, not {WELL[kind][1]}"]
