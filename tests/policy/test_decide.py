# SPDX-License-Identifier: Apache-2.0
"""The reference verdict: the sentences of policy-language.md, "What a rule allows"."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from aegis.policy.model import (
    Actions,
    Decision,
    Identity,
    Mode,
    Policy,
    Protocol,
    Reason,
    Resolution,
    Scope,
    Settings,
    Verdict,
    Where,
)
from tests.policy.build import BLOCK, EMPTY, KILL, LOG, TELEGRAF, inbound, judge, out, policy, rule

REMOTE = "192.0.2.7:8086"
LOCAL = "127.0.0.53:8086"
UNTRUSTED = replace(TELEGRAF, trusted=False)


def allows(keys: dict[str, Any], to: str) -> bool:
    """Whether a rule for telegraf with *keys* permits *to*; denial must be the rule's."""
    got = judge(policy(rule(exe="telegraf", **keys)), TELEGRAF, out(to))
    assert got.reason in (Reason.RULE_ALLOWS, Reason.RULE_DENIES)
    assert (got.verdict is Verdict.ALLOWED) == (got.reason is Reason.RULE_ALLOWS)
    return got.reason is Reason.RULE_ALLOWS


@pytest.mark.parametrize(
    ("keys", "remote", "local"),
    [
        pytest.param({}, False, False, id="no-key-allows-nothing"),
        pytest.param({"ports": ["8086"]}, True, True, id="ports-are-remote-or-local"),
        pytest.param({"ports": ["8087"]}, False, False, id="other-port"),
        pytest.param({"ports": []}, False, False, id="empty-ports"),
        pytest.param({"remotes": ["8086"]}, True, True, id="remotes-leave-local-alone"),
        pytest.param({"remotes": ["443"]}, False, True, id="remotes-other-port"),
        pytest.param({"remotes": []}, False, True, id="empty-remotes"),
        pytest.param({"locals": ["8086"]}, False, True, id="locals"),
        pytest.param({"locals": ["443"]}, False, False, id="locals-other-port"),
        pytest.param({"locals": []}, False, False, id="empty-locals"),
        pytest.param({"remotes": ["8086"], "locals": []}, True, False, id="both-lists"),
        pytest.param({"ports": ["1"], "remotes": ["8086"]}, True, False, id="ports-or-remotes"),
        pytest.param({"ports": ["1"], "locals": ["8086"]}, False, True, id="ports-or-locals"),
        pytest.param({"remote": True}, True, True, id="remote-true"),
        pytest.param({"remote": False}, False, True, id="remote-false"),
        pytest.param({"local": True}, False, True, id="local-true"),
        pytest.param({"local": False}, False, False, id="local-false"),
        pytest.param({"remotes": ["8086"], "local": False}, True, False, id="no-local-at-all"),
        pytest.param({"locals": ["8086"], "remote": True}, True, True, id="any-remote"),
        pytest.param({"ports": ["8086"], "remote": False}, False, True, id="ports-not-remote"),
        pytest.param({"ports": ["8086"], "local": False}, True, False, id="ports-not-local"),
        pytest.param({"listen": ["8086"]}, False, False, id="listen-is-no-destination"),
        pytest.param({"peers": ["10.0.0.0/8"]}, False, False, id="peers-are-no-destination"),
        pytest.param({"locals": ["192.0.2.7"]}, False, False, id="remote-address-in-locals"),
        pytest.param({"remotes": ["127.0.0.53"]}, False, True, id="local-address-in-remotes"),
        pytest.param({"remotes": ["0.0.0.0/0"], "locals": []}, True, False, id="all-of-ipv4"),
        pytest.param({"remotes": ["[::/0]"], "locals": []}, False, False, id="all-of-ipv6"),
        pytest.param({"remotes": ["192.0.2.7:8086/udp"]}, False, True, id="other-protocol"),
        pytest.param({"remotes": ["192.0.2.7:8080-8086"]}, True, True, id="end-of-range"),
        pytest.param({"remotes": ["192.0.2.7:8080-8085"]}, False, True, id="past-the-range"),
    ],
)
def test_what_a_rule_allows(keys: dict[str, Any], remote: bool, local: bool) -> None:
    """TCP to port 8086 of a remote address, and of a local one in every spelling."""
    assert allows(keys, REMOTE) is remote
    assert allows(keys, "[::ffff:192.0.2.7]:8086") is remote
    assert allows(keys, LOCAL) is local
    assert allows(keys, "[::ffff:127.0.0.53]:8086") is local


def test_port_zero_is_no_port() -> None:
    """Nothing permits TCP to it; a UDP connect to it sends nothing and is allowed silently."""
    anything = {"remote": True, "local": True}
    for host in ("192.0.2.7", "127.0.0.1"):
        assert not allows(anything, f"{host}:0/tcp")
        assert not allows(anything, f"{host}:0/udp")
        assert allows(anything, f"{host}:1") and allows(anything, f"{host}:65535")
    made = policy(rule(exe="telegraf", actions=KILL))
    got = judge(made, TELEGRAF, out("192.0.2.7:0/udp", udp_connect=True))
    assert (got.verdict, got.reason) == (Verdict.ALLOWED, Reason.HARMLESS)
    assert got.actions == Actions()
    other = judge(made, TELEGRAF, out("192.0.2.7:53/udp", udp_connect=True))
    assert other.verdict is Verdict.BLOCKED


def test_names_allow_what_they_resolved_to() -> None:
    """Nothing else, and nothing at all when they did not resolve."""
    made = policy(rule(exe="telegraf", remotes=["bob.com:8086", "void.com:8086"]))
    there = Resolution({"bob.com": frozenset({ip_address("192.0.2.7")})})
    assert judge(made, TELEGRAF, out(REMOTE), there).reason is Reason.RULE_ALLOWS
    assert judge(made, TELEGRAF, out("192.0.2.8:8086"), there).verdict is Verdict.BLOCKED
    assert judge(made, TELEGRAF, out("192.0.2.7:8087"), there).verdict is Verdict.BLOCKED
    assert judge(made, TELEGRAF, out(REMOTE), EMPTY).verdict is Verdict.BLOCKED


@pytest.mark.parametrize(
    ("actions", "enforced", "observed"),
    [
        pytest.param(KILL, Verdict.BLOCKED, Verdict.WOULD_BLOCK, id="kill-implies-block"),
        pytest.param(BLOCK, Verdict.BLOCKED, Verdict.WOULD_BLOCK, id="block"),
        pytest.param(LOG, Verdict.ALLOWED, Verdict.ALLOWED, id="log"),
        pytest.param(Actions(), Verdict.ALLOWED, Verdict.ALLOWED, id="empty"),
        pytest.param(Actions(allow=True, log=True), Verdict.ALLOWED, Verdict.ALLOWED, id="allow"),
    ],
)
def test_verdict_of_a_denied_connection(
    actions: Actions, enforced: Verdict, observed: Verdict
) -> None:
    """Actions act as written in both modes; only refusal differs."""
    for mode, verdict in ((Mode.ENFORCE, enforced), (Mode.OBSERVE, observed)):
        ruled = policy(rule(7, exe="telegraf", actions=actions), mode=mode)
        got = judge(ruled, TELEGRAF, out(REMOTE))
        assert (got.verdict, got.reason, got.actions) == (verdict, Reason.RULE_DENIES, actions)
        assert got.where == Where("app.toml", 7)
        stranger = policy(unconfigured_actions=actions, mode=mode)
        got = judge(stranger, TELEGRAF, out(REMOTE))
        assert (got.verdict, got.reason, got.actions) == (verdict, Reason.UNCONFIGURED, actions)
        assert (got.rule, got.where) == (None, None)


WHITE = {"ips": ["192.0.2.0/24", "127.0.0.0/8"], "white_ports": ["443"]}


@pytest.mark.parametrize(
    ("to", "listed"),
    [
        pytest.param("192.0.2.7:1", True, id="ip"),
        pytest.param("[::ffff:192.0.2.7]:1", True, id="ip-mapped"),
        pytest.param("127.0.0.1:1", True, id="local-ip"),
        pytest.param("198.51.100.1:443", True, id="port"),
        pytest.param("[2001:db8::1]:443/udp", True, id="port-udp"),
        pytest.param("[::1]:443", True, id="local-port"),
        pytest.param("198.51.100.1:444", False, id="neither"),
        pytest.param("[::1]:444", False, id="local-neither"),
    ],
)
def test_whitelist_is_for_every_program(to: str, listed: bool) -> None:
    """Local and remote alike, whatever the program's rule; not for a strict one."""
    for made in (policy(**WHITE), policy(rule(exe="telegraf"), **WHITE)):
        got = judge(made, TELEGRAF, out(to))
        assert (got.reason is Reason.WHITELIST) is listed
        if listed:
            assert (got.verdict, got.actions) == (Verdict.ALLOWED, Actions())
            assert got.where == Where("list.toml", 1)
    strict = policy(rule(exe="telegraf", strict=True), **WHITE)
    assert judge(strict, TELEGRAF, out(to)).reason is Reason.RULE_DENIES


def test_the_rule_is_named_where_both_it_and_the_whitelist_allow() -> None:
    """Its entry decides: it would be in force without the whitelist."""
    got = judge(
        policy(rule(7, exe="telegraf", ports=["443"]), **WHITE), TELEGRAF, out("1.1.1.1:443")
    )
    assert (got.reason, got.where) == (Reason.RULE_ALLOWS, Where("list.toml", 7))
    assert got.entry is not None and got.entry.text == "443"


@pytest.mark.parametrize(
    ("to", "listed"),
    [
        pytest.param("9.9.9.9:53/udp", True, id="udp"),
        pytest.param("9.9.9.9:53/tcp", True, id="tcp"),
        pytest.param("127.0.0.53:53", True, id="local"),
        pytest.param("9.9.9.9:54", False, id="other-port"),
        pytest.param("9.9.9.8:53", False, id="other-address"),
    ],
)
def test_resolvers_are_whitelisted_by_default(to: str, listed: bool) -> None:
    """Port 53 of the nameservers; not with ``resolvers = false``, not for a strict rule."""
    servers = Resolution(resolvers=(ip_address("::ffff:9.9.9.9"), ip_address("127.0.0.53")))
    got = judge(policy(), TELEGRAF, out(to), servers)
    assert (got.reason is Reason.WHITELIST) is listed
    off = judge(policy(resolvers=False), TELEGRAF, out(to), servers)
    assert off.reason is Reason.UNCONFIGURED
    strict = judge(policy(rule(exe="telegraf", strict=True)), TELEGRAF, out(to), servers)
    assert strict.reason is Reason.RULE_DENIES


def test_whitelisted_programs_are_not_watched() -> None:
    """In or out, with or without a rule; not untrusted files, not under a strict rule."""
    flows = (out(REMOTE), inbound("192.0.2.7", 80))
    for flow in flows:
        for rules in ((), (rule(exe="telegraf", listen=[]),)):
            got = judge(policy(*rules, programs=["telegraf"]), TELEGRAF, flow)
            assert (got.reason, got.where) == (Reason.PROGRAM, Where("main.toml", 9))
            assert judge(policy(*rules, programs=["telegraf"]), UNTRUSTED, flow).reason in (
                Reason.UNCONFIGURED,
                Reason.RULE_DENIES,
            )
        strict = policy(rule(exe="telegraf", strict=True, listen=[]), programs=["telegraf"])
        assert judge(strict, TELEGRAF, flow).reason is Reason.RULE_DENIES


def test_ignored_programs_are_not_watched() -> None:
    """An untrusted file of that name is as unconfigured, and the event says why."""
    for flow in (out(REMOTE), inbound("192.0.2.7", 80)):
        made = policy(rule(7, exe="telegraf", ignore=True, actions=KILL))
        got = judge(made, TELEGRAF, flow)
        assert (got.verdict, got.reason) == (Verdict.ALLOWED, Reason.PROGRAM)
        assert got.where == Where("app.toml", 7)
        got = judge(made, UNTRUSTED, flow)
        assert (got.verdict, got.reason) == (Verdict.ALLOWED, Reason.UNTRUSTED)
        assert got.actions == STRANGER
        lifted = policy(rule(exe="telegraf", ignore=True, untrusted_file=True))
        assert judge(lifted, UNTRUSTED, flow).reason is Reason.PROGRAM
    whitelisted = policy(rule(exe="telegraf", ignore=True), **WHITE)
    assert judge(whitelisted, UNTRUSTED, out("1.1.1.1:443")).reason is Reason.WHITELIST


STRANGER = Settings().unconfigured_actions  # where the policy says nothing

CLAIMED: tuple[tuple[str, Reason], ...] = (
    ("192.0.2.7:8086", Reason.WHITELIST),  # the rule would allow; whitelisted for all
    ("198.51.100.1:8086", Reason.UNTRUSTED),  # the rule would allow
    ("127.1.1.1:8087", Reason.WHITELIST),  # denied by the rule; whitelisted
    ("198.51.100.1:8087", Reason.RULE_DENIES),
)


@pytest.mark.parametrize(("to", "reason"), CLAIMED)
def test_untrusted_files_get_restrictions_only(to: str, reason: Reason) -> None:
    """What the rule would allow is as for an unconfigured program; the rest is the rule's."""
    made = policy(rule(exe="telegraf", ports=["8086"]), **WHITE)
    got = judge(made, UNTRUSTED, out(to))
    actions = {Reason.WHITELIST: Actions(), Reason.UNTRUSTED: STRANGER, Reason.RULE_DENIES: BLOCK}
    assert (got.reason, got.actions) == (reason, actions[reason])
    assert judge(made, TELEGRAF, out("198.51.100.1:8086")).reason is Reason.RULE_ALLOWS
    lifted = policy(rule(exe="telegraf", ports=["8086"], untrusted_file=True))
    assert judge(lifted, UNTRUSTED, out("198.51.100.1:8086")).reason is Reason.RULE_ALLOWS


def test_strict_restricts_untrusted_files_too() -> None:
    """But what the strict rule itself would allow stays whitelisted, as for everyone."""
    made = policy(rule(exe="telegraf", ports=["8086"], strict=True), **WHITE)
    assert judge(made, UNTRUSTED, out("192.0.2.7:8086")).reason is Reason.WHITELIST
    assert judge(made, UNTRUSTED, out("192.0.2.7:8087")).reason is Reason.RULE_DENIES


def test_local_left_alone_is_no_permission_for_untrusted_files() -> None:
    """A rule leaves local alone for its program, not for any file of that name."""
    made = policy(rule(exe="telegraf", remotes=["443"]))
    assert judge(made, TELEGRAF, out(LOCAL)).reason is Reason.RULE_ALLOWS
    assert judge(made, UNTRUSTED, out(LOCAL)).reason is Reason.UNTRUSTED


def answer(got: Decision) -> tuple[Reason, Scope]:
    return got.reason, got.scope


PEER = "192.0.2.7"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({}, (Reason.RULE_ALLOWS, Scope.LISTEN), id="left-alone"),
        pytest.param({"listen": ["80"]}, (Reason.RULE_ALLOWS, Scope.LISTEN), id="listen"),
        pytest.param({"listen": ["81"]}, (Reason.RULE_DENIES, Scope.LISTEN), id="other-port"),
        pytest.param({"listen": ["80/udp"]}, (Reason.RULE_DENIES, Scope.LISTEN), id="protocol"),
        pytest.param({"listen": []}, (Reason.RULE_DENIES, Scope.LISTEN), id="no-port"),
        pytest.param({"peers": [PEER]}, (Reason.RULE_ALLOWS, Scope.LISTEN), id="peer"),
        pytest.param({"peers": ["10.0.0.0/8"]}, (Reason.RULE_DENIES, Scope.PEER), id="stranger"),
        pytest.param({"peers": []}, (Reason.RULE_DENIES, Scope.PEER), id="no-peer"),
        pytest.param(
            {"listen": ["81"], "peers": [PEER]}, (Reason.RULE_DENIES, Scope.LISTEN), id="one-of-two"
        ),
        pytest.param(
            {"listen": ["80"], "peers": []}, (Reason.RULE_DENIES, Scope.PEER), id="other-of-two"
        ),
    ],
)
def test_inbound_of_a_configured_program(
    keys: dict[str, Any], expected: tuple[Reason, Scope]
) -> None:
    """Both limits hold, also with ``inbound = false``; the whitelist's lists are no part of it."""
    for more in ({}, {"inbound": False}, {"ips": ["0.0.0.0/0"], "white_ports": ["80"]}):
        made = policy(rule(exe="telegraf", **keys), **more)
        for peer in (PEER, f"::ffff:{PEER}"):
            got = judge(made, TELEGRAF, inbound(peer, 80))
            assert answer(got) == expected
            assert got.verdict is (
                Verdict.ALLOWED if got.reason is Reason.RULE_ALLOWS else Verdict.BLOCKED
            )


def test_inbound_of_an_unconfigured_program_is_an_event() -> None:
    """Unless inbound watching is off; then it is quiet."""
    made = policy(unconfigured_actions=BLOCK, ips=["0.0.0.0/0"])
    got = judge(made, TELEGRAF, inbound(PEER, 80))
    assert answer(got) == (Reason.UNCONFIGURED, Scope.LISTEN)
    assert got.verdict is Verdict.BLOCKED
    off = replace(made, settings=replace(made.settings, inbound=False))
    got = judge(off, TELEGRAF, inbound(PEER, 80))
    assert (got.verdict, got.reason, got.actions) == (Verdict.ALLOWED, Reason.HARMLESS, Actions())


@pytest.mark.parametrize("keys", [{}, {"listen": ["80"]}, {"peers": [PEER]}])
def test_inbound_of_an_untrusted_file(keys: dict[str, Any]) -> None:
    """What the rule permits, or leaves alone, is as for an unconfigured program."""
    made = policy(rule(exe="telegraf", **keys))
    assert judge(made, UNTRUSTED, inbound(PEER, 80)).reason is Reason.UNTRUSTED
    off = replace(made, settings=replace(made.settings, inbound=False))
    assert judge(off, UNTRUSTED, inbound(PEER, 80)).reason is Reason.HARMLESS


def test_a_udp_server_receives_on_what_it_may_listen_on() -> None:
    """``listen`` is also the ports a program may receive on."""
    made = policy(rule(exe="telegraf", listen=["53/udp"]))
    assert judge(made, TELEGRAF, inbound(PEER, 53, Protocol.UDP)).reason is Reason.RULE_ALLOWS
    assert judge(made, TELEGRAF, inbound(PEER, 53)).reason is Reason.RULE_DENIES


def founding(*rules: Any) -> Policy:
    """The founding main file, without the keys marked added."""
    return policy(
        *rules,
        ips=["192.168.0.0/16", "10.0.0.0/8"],
        white_ports=["80", "443"],
        programs=["systemd"],
        resolvers=False,
    )


def test_founding_zz_telegraf_is_killed_for_other_remote_ports_only() -> None:
    """Example 3: ``remotes = ["8086"]``, ``actions = ["kill"]``; local stays open."""
    made = founding(rule(exe="telegraf", remotes=["8086"], actions=KILL))
    assert judge(made, TELEGRAF, out("192.0.2.7:8086")).reason is Reason.RULE_ALLOWS
    assert judge(made, TELEGRAF, out("192.0.2.7:8087")).actions == KILL
    assert judge(made, TELEGRAF, out("127.0.0.1:8087")).reason is Reason.RULE_ALLOWS
    assert judge(made, TELEGRAF, out("10.1.1.1:8087")).reason is Reason.WHITELIST


def test_founding_stranger_is_logged() -> None:
    """Example 6: a process never heard of is an event, and is not stopped by default."""
    got = judge(founding(), Identity(path="/opt/x", exe="x"), out("192.0.2.7:3333"))
    assert (got.verdict, got.reason) == (Verdict.ALLOWED, Reason.UNCONFIGURED)
    assert got.actions == Actions(log=True, notify=True)
