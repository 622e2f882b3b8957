# SPDX-License-Identifier: Apache-2.0
"""The tables themselves: exact where it matters, bounded, and made quickly."""

import re
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import AegisError
from aegis.policy import compile as compiler
from aegis.policy.compile import compile_policy
from aegis.policy.model import (
    Actions,
    Entry,
    Mode,
    Policy,
    Resolution,
    Rule,
    Scope,
    Selectors,
    Where,
    Whitelist,
)
from aegis.policy.ports import ANY_PORTS, NO_PORTS
from aegis.policy.tables import Net, Ports, Selector, Tables
from tests.policy.build import BLOCK, EMPTY, KILL, LOG, policy, rule

HEADER = Path(__file__).parents[2] / "kernel" / "aegis.h"
MAPPED = bytes(10) + b"\xff\xff"
PLACE = Where("f", 1)


def tables(*rules: Rule, resolution: Resolution = EMPTY, **keys: Any) -> Tables:
    return compile_policy(policy(*rules, **keys), resolution)


def nodes(made: Tables, app: int, scope: Scope) -> dict[str, Ports]:
    """Prefixes as text, IPv4 in its own form."""

    def text(net: Net) -> str:
        if net.address.startswith(MAPPED) and net.length >= 96:
            return f"{IPv4Address(net.address[12:])}/{net.length - 96}"
        return f"{IPv6Address(net.address)}/{net.length}"

    wanted = {
        net: ports for net, ports in made.nets.items() if (net.app, net.scope) == (app, scope)
    }
    return {text(net): ports for net, ports in wanted.items()}


def tcp_udp(*ranges: tuple[int, int]) -> Ports:
    return Ports(ranges, ranges)


def test_limits_are_those_of_the_kernel() -> None:
    """One place each: kernel/aegis.h holds the sizes, for two generations."""
    found = dict(re.findall(r"(AEGIS_\w+_MAX) = (\d+)", HEADER.read_text()))
    assert int(found["AEGIS_APPS_MAX"]) == compiler.RULES_MAX + 1
    assert int(found["AEGIS_HOSTS_MAX"]) == 2 * compiler.HOSTS_MAX
    assert int(found["AEGIS_NETS_MAX"]) == 2 * compiler.NETS_MAX


def test_nested_prefixes_hold_what_covers_them() -> None:
    """The longest match alone decides; a prefix that adds nothing is left out."""
    made = tables(
        rule(
            exe="x",
            remotes=["22", "10.0.0.0/8:80", "10.1.0.0/16:81/tcp", "10.1.1.1:80", "10.1.1.2:90"],
        )
    )
    assert made.apps[1].base[Scope.REMOTE] == tcp_udp((22, 22))
    web = ((22, 22), (80, 81))
    assert nodes(made, 1, Scope.REMOTE) == {
        "10.0.0.0/8": tcp_udp((22, 22), (80, 80)),
        "10.1.0.0/16": Ports(web, ((22, 22), (80, 80))),
        "10.1.1.2/32": Ports((*web, (90, 90)), ((22, 22), (80, 80), (90, 90))),
    }


def test_ipv6_prefixes_grant_no_ipv4() -> None:
    """Where one covers ::ffff:0:0/96, that is a node of its own with IPv4's grants."""
    made = tables(rule(exe="x", remotes=["22", "[::/0]:80", "10.0.0.0/8:90"]))
    assert nodes(made, 1, Scope.REMOTE) == {
        "::/0": tcp_udp((22, 22), (80, 80)),
        "0.0.0.0/0": tcp_udp((22, 22)),
        "10.0.0.0/8": tcp_udp((22, 22), (90, 90)),
    }
    made = tables(rule(exe="x", remotes=["[::/0]:80", "0.0.0.0/0:90"]))
    assert nodes(made, 1, Scope.REMOTE) == {
        "::/0": tcp_udp((80, 80)),
        "0.0.0.0/0": tcp_udp((90, 90)),
    }


def test_equal_grants_to_both_versions_need_one_node() -> None:
    """The IPv4 node says what ::/0 says; what lies below still inherits from it."""
    made = tables(rule(exe="x", remotes=["[::/0]:80", "0.0.0.0/0:80", "10.0.0.0/8:90"]))
    assert nodes(made, 1, Scope.REMOTE) == {
        "::/0": tcp_udp((80, 80)),
        "10.0.0.0/8": tcp_udp((80, 80), (90, 90)),
    }


def test_mapped_ipv6_networks_grant_nothing() -> None:
    """The model stores them as IPv4; written otherwise they must not widen."""
    mapped = Entry("x", PLACE, network=IPv6Network("::ffff:10.0.0.0/104"))
    wanted = Rule(Selectors(exe="x"), PLACE, BLOCK, remotes=(mapped,))
    assert not compile_policy(Policy(rules=(wanted,)), EMPTY).nets


def test_names_become_exact_hosts() -> None:
    """In whatever form the resolver gave them; an unresolved one is not there."""
    there = frozenset({ip_address("::ffff:192.0.2.7"), ip_address("2001:db8::1")})
    made = tables(
        rule(exe="x", remotes=["bob.com:80", "void.com:80"]),
        resolution=Resolution({"bob.com": there}),
    )
    assert nodes(made, 1, Scope.REMOTE) == {
        "192.0.2.7/32": tcp_udp((80, 80)),
        "2001:db8::1/128": tcp_udp((80, 80)),
    }
    assert made.apps[1].base[Scope.REMOTE] == NO_PORTS


def test_the_whitelist_is_app_0() -> None:
    """Each address where it can match; prefixes over both in both."""
    made = tables(
        ips=["127.0.0.1", "192.0.2.7", "[::1]", "126.0.0.0/7", "127.0.0.0/9"],
        white_ports=["443"],
        resolution=Resolution(resolvers=(ip_address("9.9.9.9"), ip_address("127.0.0.53"))),
        unconfigured_actions=KILL,
        detent=7,
        mode=Mode.OBSERVE,
        deny_socket_fds=True,
    )
    assert made.deny_socket_fds and not tables().deny_socket_fds
    white = made.apps[0]
    assert (white.rule, white.actions, white.detent) == (None, KILL, 7)
    assert (made.mode, made.unconfigured_actions) == (Mode.OBSERVE, KILL)
    assert white.base[Scope.REMOTE] == white.base[Scope.LOCAL] == tcp_udp((443, 443))
    assert white.base[Scope.LISTEN] == white.base[Scope.PEER] == NO_PORTS
    assert nodes(made, 0, Scope.REMOTE) == {
        "126.0.0.0/7": ANY_PORTS,
        "192.0.2.7/32": ANY_PORTS,
        "9.9.9.9/32": tcp_udp((53, 53), (443, 443)),
    }
    assert nodes(made, 0, Scope.LOCAL) == {
        "::1/128": ANY_PORTS,
        "126.0.0.0/7": ANY_PORTS,
    }


def test_resolvers_can_be_left_out() -> None:
    """``resolvers = false``."""
    servers = Resolution(resolvers=(ip_address("9.9.9.9"),))
    assert not tables(resolvers=False, resolution=servers).nets
    assert tables(resolution=servers).nets


def test_inbound_watching_off_leaves_the_unconfigured_alone() -> None:
    """App 0 says so; a rule's own limits stay."""
    made = tables(rule(exe="x", listen=["80"], peers=["10.0.0.0/8"]), inbound=False)
    assert made.apps[0].base[Scope.LISTEN] == made.apps[0].base[Scope.PEER] == ANY_PORTS
    assert made.apps[1].base[Scope.LISTEN] == tcp_udp((80, 80))
    assert made.apps[1].base[Scope.PEER] == NO_PORTS
    assert nodes(made, 1, Scope.PEER) == {"10.0.0.0/8": ANY_PORTS}


def test_apps_carry_their_rule() -> None:
    """In order; what the kernel needs to know of it beside the ports."""
    first = rule(1, exe="x", strict=True, detent=3, actions=LOG)
    second = rule(2, path="/y", ignore=True, untrusted_file=True, actions=KILL)
    made = tables(first, second)
    assert [app.rule for app in made.apps] == [None, first, second]
    assert [app.actions for app in made.apps[1:]] == [LOG, KILL]
    assert [app.strict for app in made.apps] == [False, True, False]
    assert [app.ignore for app in made.apps] == [False, False, True]
    assert [app.needs_trust for app in made.apps] == [False, True, False]
    assert made.apps[1].detent == 3


def test_selectors_are_those_of_the_rules_and_the_whitelisted_programs() -> None:
    """A whitelisted program is told by ``whitelist``, not by its app."""
    wanted = rule(exe="x", path="/x", cmdline="x y", user=0, unit="u", any_namespace=True)
    made = tables(wanted, rule(user=0), programs=["systemd", "/bin/y"])
    assert made.selectors == (
        Selector(1, "x", "/x", "x y", 0, "u", any_namespace=True),
        Selector(2, user=0),
        Selector(0, exe="systemd", whitelist=True),
        Selector(0, path="/bin/y", whitelist=True),
    )


def test_a_rule_about_nobody_is_an_error() -> None:
    """A selector without texts would match everyone."""
    with pytest.raises(AegisError, match=r"f:1: \[\[app\]\] needs at least one selector"):
        compile_policy(Policy(rules=(Rule(Selectors(), PLACE, LOG),)), EMPTY)


def hosts(count: int, first: int = 10 << 24, length: int = 32) -> tuple[Entry, ...]:
    step = 1 << (32 - length)
    return tuple(
        Entry("e", PLACE, network=IPv4Network((first + i * step, length))) for i in range(count)
    )


def test_the_limits_are_named() -> None:
    """The most fits; one more is an error."""
    rules = tuple(Rule(Selectors(user=i), PLACE, LOG) for i in range(4097))
    assert len(compile_policy(Policy(rules=rules[:4096]), EMPTY).apps) == 4097
    with pytest.raises(AegisError, match=r"4097 \[\[app\]\] rules; the limit is 4096"):
        compile_policy(Policy(rules=rules), EMPTY)
    for length, what in ((32, "exact addresses"), (31, "address prefixes")):
        full = Policy(whitelist=Whitelist(ips=hosts(65536, length=length)))
        assert len(compile_policy(full, EMPTY).nets) == 65536
        over = Policy(whitelist=Whitelist(ips=hosts(65537, length=length)))
        with pytest.raises(AegisError, match=f"65537 {what}; the limit is 65536"):
            compile_policy(over, EMPTY)


@pytest.mark.parametrize("shape", ["many-rules", "one-list", "nested", "ports"])
def test_the_largest_policies_compile_in_a_moment(shape: str) -> None:
    """65,536 entries, however they lie: no step is quadratic. (Typically 0.3-0.7 s.)"""
    if shape == "many-rules":
        rules = tuple(
            Rule(Selectors(user=i), PLACE, LOG, remotes=hosts(16, i << 16)) for i in range(4096)
        )
    else:
        entries = {
            "one-list": hosts(65536),
            "nested": tuple(
                Entry(
                    "e",
                    PLACE,
                    network=IPv4Network(((i // 32) << 21 & ~0 << (31 - i % 32), i % 32 + 1)),
                )
                for i in range(65536)
            ),
            "ports": tuple(
                Entry("e", PLACE, first_port=2 * (i % 32000) + 1, last_port=2 * (i % 32000) + 1)
                for i in range(65536)
            ),
        }[shape]
        rules = (Rule(Selectors(user=1), PLACE, Actions(), remotes=entries),)
    start = time.process_time()
    compile_policy(Policy(rules=rules), EMPTY)
    assert time.process_time() - start < 3
    assert sum(len(r.remotes or ()) for r in rules) == 65536


def test_nets_are_unique_and_have_no_host_bits() -> None:
    """What a longest-prefix map takes."""
    made = tables(rule(exe="x", remotes=["10.0.0.0/8:1", "10.0.0.0/8:2", "10.0.0.0/9:3"]))
    assert nodes(made, 1, Scope.REMOTE) == {
        "10.0.0.0/8": tcp_udp((1, 2)),
        "10.0.0.0/9": tcp_udp((1, 3)),
    }
    assert Net(1, Scope.REMOTE, bytes(10) + b"\xff\xff\x0a\0\0\0", 104) in made.nets
