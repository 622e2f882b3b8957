# SPDX-License-Identifier: Apache-2.0
"""Explanations: the reference verdict, in a sentence, with what would change it."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from aegis.policy.decide import decide
from aegis.policy.explain import Explanation, explain
from aegis.policy.model import Actions, Flow, Identity, Mode, Policy, Reason, Resolution, Verdict
from aegis.policy.sentences import destination
from tests.policy.build import BLOCK, EMPTY, KILL, LOG, TELEGRAF, inbound, out, policy, rule
from tests.policy.generate import edges, make_flow, make_identity, make_policy, make_resolution

TO = "192.0.2.7:8086"
UNTRUSTED = replace(TELEGRAF, trusted=False)


def ask(
    made: Policy, flow: Flow, identity: Identity = TELEGRAF, resolution: Resolution = EMPTY
) -> Explanation:
    return explain(made, resolution, identity, flow)


def changes(answer: Explanation) -> Mapping[str, Verdict]:
    return {change.what: change.decision.verdict for change in answer.changes}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"ports": ["8086"]}, 'The rule at app.toml:7 lists "8086" (list.toml:7).'),
        ({"remote": True}, "The rule at app.toml:7 says remote = true."),
        ({"remote": False}, "The rule at app.toml:7 says remote = false."),
        ({}, "The rule at app.toml:7 names no destination, so it allows none."),
        (
            {"ports": ["1"]},
            "The rule at app.toml:7 does not list 192.0.2.7:8086/tcp, which is remote.",
        ),
        ({"ignore": True}, "The rule at app.toml:7 says ignore = true."),
    ],
)
def test_why_outbound(keys: dict[str, Any], sentence: str) -> None:
    """What in the rule decided, with its place."""
    assert ask(policy(rule(7, exe="telegraf", **keys)), out(TO)).why == sentence


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"remotes": []},
            "The rule at app.toml:7 says nothing about local destinations, so they are left alone.",
        ),
        ({"local": True}, "The rule at app.toml:7 says local = true."),
        ({"local": False}, "The rule at app.toml:7 says local = false."),
        ({"locals": []}, "The rule at app.toml:7 does not list [::1]:9/udp, which is local."),
    ],
)
def test_why_local(keys: dict[str, Any], sentence: str) -> None:
    """Local destinations have reasons of their own."""
    assert ask(policy(rule(7, exe="telegraf", **keys)), out("[::1]:9/udp")).why == sentence


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {},
            "The rule at app.toml:7 has neither listen nor peers, so inbound is left alone.",
        ),
        ({"listen": ["80"]}, "The rule at app.toml:7 accepts this port and this peer."),
        ({"listen": ["81"]}, "The rule at app.toml:7 does not list 80/tcp in listen."),
        ({"peers": []}, "The rule at app.toml:7 does not list 192.0.2.7 in peers."),
    ],
)
def test_why_inbound(keys: dict[str, Any], sentence: str) -> None:
    """The port or the peer."""
    made = policy(rule(7, exe="telegraf", **keys))
    assert ask(made, inbound("192.0.2.7", 80)).why == sentence


def test_why_without_a_rule() -> None:
    """The whitelist, the program's name, or nothing."""
    servers = Resolution(resolvers=(ip_address("192.0.2.7"),))
    assert ask(policy(), out(TO)).why == "No [[app]] is about this program."
    assert (
        ask(policy(white_ports=["8086"]), out(TO)).why
        == '[whitelist] allows "8086" (list.toml:1) to every program.'
    )
    assert (
        ask(policy(), out("192.0.2.7:53"), resolution=servers).why
        == "[whitelist] resolvers allows port 53 of this host's nameservers."
    )
    assert (
        ask(policy(programs=["telegraf"]), out(TO)).why
        == "[whitelist] programs names this program (main.toml:9)."
    )
    assert (
        ask(policy(), out("192.0.2.7:0/udp", udp_connect=True)).why
        == "A UDP connect() to port 0 sends nothing."
    )
    assert ask(policy(inbound=False), inbound("192.0.2.7", 80)).why.startswith("[global] inbound")
    port_zero = ask(policy(rule(7, exe="telegraf", remote=True)), out("192.0.2.7:0/tcp"))
    assert port_zero.why == "The rule at app.toml:7 cannot allow port 0: it is no port."


def test_why_a_file_may_not_claim_a_rule() -> None:
    """It says when it happened, and what would lift it."""
    for keys, grants in (({"ports": ["8086"]}, "would allow it"), ({"ignore": True}, "ignores")):
        answer = ask(policy(rule(7, exe="telegraf", **keys)), out(TO), UNTRUSTED)
        assert answer.decision.reason is Reason.UNTRUSTED
        assert f"The rule at app.toml:7 {grants}" in answer.why
        assert "treated as unconfigured" in answer.why
        assert "with untrusted_file = true at app.toml:7" in changes(answer)
        assert "for a file of root's in the host's own root" in changes(answer)


def test_a_path_would_be_the_rule_s_in_the_host_s_own_root() -> None:
    """In a container it is nobody's; the host's own file would get the rule."""
    inside = replace(TELEGRAF, host_fs=False, trusted=False)
    answer = ask(policy(rule(path="/usr/bin/telegraf", actions=BLOCK)), out(TO), inside)
    assert answer.decision.reason is Reason.UNCONFIGURED
    assert changes(answer)["for a file of root's in the host's own root"] is Verdict.BLOCKED


def test_inbound_watching_may_be_what_reports() -> None:
    """Only there: it has no say in what goes out."""
    made = policy(unconfigured_actions=BLOCK)
    inward, outward = (changes(ask(made, flow)) for flow in (inbound("192.0.2.7", 22), out(TO)))
    assert inward["with inbound = false"] is Verdict.ALLOWED
    assert not any("inbound" in what for what in outward)
    assert not any("[whitelist]" in what for what in inward)


def test_strict_would_be_what_refuses() -> None:
    """Where the whitelist allowed it; and the other way round."""
    for strict, verdict in ((False, Verdict.BLOCKED), (True, Verdict.ALLOWED)):
        governed = rule(7, exe="telegraf", ports=["8086"], strict=strict, actions=BLOCK)
        answer = ask(policy(governed, ips=["192.0.2.0/24"]), out("192.0.2.7:25"))
        assert answer.decision.verdict is not verdict
        word = "false" if strict else "true"
        assert changes(answer)[f"with strict = {word} at app.toml:7"] is verdict


def test_what_the_whitelist_did() -> None:
    """Decided, would have, was not asked, or had nothing to say."""
    ruled, white = rule(7, exe="telegraf", actions=KILL), {"white_ports": ["8086"]}
    assert (
        ask(policy(ruled, **white), out(TO)).whitelist == "it decided; without it: blocked (kill)"
    )
    assert ask(policy(ruled), out(TO)).whitelist == "nothing in it matches"
    strict = policy(replace(ruled, strict=True), **white)
    assert (
        ask(strict, out(TO)).whitelist
        == "it would allow this (list.toml:1), but the rule is strict"
    )
    assert ask(strict, out("192.0.2.7:1")).whitelist == "nothing in it matches"
    listed = policy(rule(exe="telegraf", ports=["8086"]), **white)
    assert ask(listed, out(TO)).whitelist == "not asked: decided before it"
    assert "not about inbound" in ask(policy(**white), inbound("192.0.2.7", 8086)).whitelist
    named = policy(replace(ruled, strict=True), programs=["telegraf"])
    assert "(main.toml:9), but the rule is strict" in ask(named, out(TO)).whitelist


@pytest.mark.parametrize(
    ("flow", "entry", "key"),
    [
        (out(TO), "192.0.2.7:8086/tcp", "remotes"),
        (out("[2001:db8::1]:53/udp"), "[2001:db8::1]:53/udp", "remotes"),
        (out("[::ffff:127.0.0.1]:1"), "127.0.0.1:1/tcp", "locals"),
        (inbound("192.0.2.7", 80), "80/tcp", "listen"),
        (inbound("192.0.2.7", 81), "192.0.2.7", "peers"),
    ],
)
def test_the_entry_that_is_missing(flow: Flow, entry: str, key: str) -> None:
    """The narrowest, in its key; with it the flow is on the map."""
    made = policy(rule(7, exe="telegraf", ports=["9"], listen=["81"], peers=[], actions=KILL))
    if key == "listen":
        made = policy(rule(7, exe="telegraf", listen=["81"], actions=KILL))
    answer = ask(made, flow)
    assert answer.decision.verdict is Verdict.BLOCKED
    assert changes(answer)[f'with "{entry}" in {key} of app.toml:7'] is Verdict.ALLOWED


def test_an_entry_takes_the_place_of_a_switch() -> None:
    """``remote = false`` and a list of the same scope exclude each other."""
    answer = ask(policy(rule(7, exe="telegraf", remote=False)), out(TO))
    assert changes(answer)['with "192.0.2.7:8086/tcp" in remotes of app.toml:7'] is Verdict.ALLOWED


def test_what_would_change_the_answer() -> None:
    """Mode, actions, other rules, strict; only what really changes it is told."""
    made = policy(
        rule(1, user=1000, ports=["8086"]), rule(2, exe="telegraf", actions=KILL), mode=Mode.ENFORCE
    )
    found = changes(ask(made, out(TO)))
    assert found['with mode = "observe"'] is Verdict.WOULD_BLOCK
    assert found["without the rule at app.toml:2, so that app.toml:1 governs"] is Verdict.ALLOWED
    assert not any("strict" in what or "untrusted" in what for what in found)
    logged = changes(ask(policy(rule(7, exe="telegraf", actions=LOG)), out(TO)))
    assert logged['with "block" in actions of app.toml:7'] is Verdict.BLOCKED
    stranger = changes(ask(policy(unconfigured_actions=BLOCK), out(TO)))
    assert stranger['with "192.0.2.7" in [whitelist] ips'] is Verdict.ALLOWED
    assert stranger['with mode = "observe"'] is Verdict.WOULD_BLOCK
    quiet = changes(ask(policy(unconfigured_actions=Actions(allow=True)), out(TO)))
    assert quiet['with "block" in unconfigured_actions'] is Verdict.BLOCKED


def test_destinations_are_written_as_in_a_policy() -> None:
    """IPv6 in brackets with a port, mapped IPv4 as IPv4."""
    assert destination(ip_address("2001:db8::1"), 443) == "[2001:db8::1]:443"
    assert destination(ip_address("2001:db8::1")) == "2001:db8::1"
    assert destination(ip_address("::ffff:192.0.2.7"), 443) == "192.0.2.7:443"


def test_any_policy_can_be_explained() -> None:
    """The decision is decide's own, the sentence names its rule, each change is one."""
    rng = Random(20261124)  # noqa: S311
    for _ in range(300):
        made, resolution = make_policy(rng), make_resolution(rng)
        around = edges(made)
        for _ in range(5):
            identity, flow = make_identity(rng, made), make_flow(rng, around)
            answer = explain(made, resolution, identity, flow)
            decision = decide(made, resolution, identity, flow)
            assert answer.decision == decision
            if decision.rule and decision.reason in (Reason.RULE_ALLOWS, Reason.RULE_DENIES):
                assert str(decision.rule.where) in answer.why
            assert answer.why.endswith(".") and answer.whitelist
            for change in answer.changes:
                other = change.decision
                assert (other.verdict, other.actions) != (decision.verdict, decision.actions)
