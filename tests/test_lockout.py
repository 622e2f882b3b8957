# SPDX-License-Identifier: Apache-2.0
"""A policy that locks somebody out is refused, with the reason: on a made-up host."""

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from aegis import lockout
from aegis.config.load import load_policy
from aegis.lifelines import Host, Lifeline, Process, clock_servers, of_process, of_updates
from aegis.policy.model import Direction, Flow, Identity, Policy, Resolution
from tests.locking_out import KINDS, LATER, lock_out

LOCKOUTS = tomllib.loads((Path(__file__).parent / "lockouts.toml").read_text())["lockout"]
NAMESERVER = ip_address("10.7.0.53")
MEANT = Resolution(resolvers=(NAMESERVER,))
FILES = {
    "etc/resolv.conf": f"nameserver 127.0.0.53\nnameserver {NAMESERVER}\n",
    "etc/chrony/chrony.conf": "# server not.this.one\npool time.example iburst\nserver 192.0.2.9\n",
    "etc/systemd/timesyncd.conf": "[Time]\n#NTP=no\nNTP=one.example two.example\n",
    "etc/apt/sources.list": "deb http://deb.example/debian bookworm main\n# deb http://no/ x\n",
    "etc/apt/sources.list.d/a.sources": "URIs: https://other.example:8443/x\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n",
    "usr/lib/apt/methods/http": "",
    "usr/lib/apt/methods/https": "",
}
CLOCKS = ["one.example", "two.example", "time.example", "192.0.2.9"]


def identity(name: str) -> Identity:
    return Identity(path=f"/usr/sbin/{name}", exe=name, argv=(name,))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root=tmp_path, packets=True)


@pytest.fixture
def lifelines(host: Host) -> list[Lifeline]:
    """Everything of the host, its files root's as they would be."""
    found = list(_of(host))
    return [replace(one, identity=replace(one.identity, trusted=True)) for one in found]


def _of(host: Host) -> Iterator[Lifeline]:
    flows = {
        "sshd: who comes in on port 2122": Flow(
            ip_address("0.0.0.0"), 2122, direction=Direction.IN, listening=True
        ),
        "sshd: the session of 198.51.100.200": Flow(
            ip_address("198.51.100.200"), 2122, direction=Direction.IN
        ),
    }
    for what, flow in flows.items():
        yield Lifeline(what, identity("sshd"), flow)
    for name in ("dnsmasq", "dhclient", "chronyd"):
        yield from of_process(Process(1, identity(name)), host)
    yield from of_updates(host)


def policy_of(text: str, folder: Path) -> Policy:
    file = folder / "policy.toml"
    file.write_text(text)
    return load_policy(file, check_trust=False).policy


def test_there_are_fifty_of_them() -> None:
    """Each one another."""
    assert len(LOCKOUTS) >= 50
    assert len({one["policy"] for one in LOCKOUTS}) == len(LOCKOUTS)


@pytest.mark.parametrize("one", LOCKOUTS, ids=lambda one: one["name"])
def test_what_locks_out_is_refused_with_the_reason(
    one: dict[str, str], lifelines: list[Lifeline], tmp_path: Path
) -> None:
    """What nobody can foresee is not: that is what the trial is for."""
    found = lockout.reasons(policy_of(one["policy"], tmp_path), MEANT, lifelines)
    if one["cuts"] == "later":
        assert found == ()
    else:
        assert any(one["cuts"] in line for line in found), found


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_so_is_what_locks_out_by_chance(
    kind: str, lifelines: list[Lifeline], tmp_path: Path
) -> None:
    """What ``./dev soak lockout`` puts on trial is what it takes it for."""
    paths = {str(one.identity.exe): str(one.identity.path) for one in lifelines}
    chance = Random(6)  # noqa: S311
    for _ in range(40):
        one = lock_out(chance, kind, lambda name: paths.get(name, f"/usr/sbin/{name}"))
        found = lockout.reasons(policy_of(one.policy, tmp_path), MEANT, lifelines)
        if one.need.cuts == LATER:
            assert found == (), one.policy
        else:
            assert any(one.need.cuts in line for line in found), (one.policy, found)


HARMLESS = [
    pytest.param("", id="nothing"),
    pytest.param('[[app]]\nexe = "telegraf"\nports = ["8086"]\nactions = ["kill"]', id="another"),
    pytest.param('[[app]]\nexe = "sshd"\nlisten = ["2122"]\nactions = ["block"]', id="its-port"),
    pytest.param(
        '[[app]]\nexe = "sshd"\npeers = ["198.51.100.0/24"]\nactions = ["block"]', id="its-peers"
    ),
    pytest.param(
        '[[app]]\nexe = "chronyd"\nremotes = ["time.example:123", "192.0.2.9:123",'
        ' "one.example:123", "two.example:123"]\nactions = ["block"]',
        id="time-by-name",
    ),
    pytest.param(
        '[[app]]\nexe = "dhclient"\nremotes = ["67/udp"]\nlisten = ["68/udp"]\n'
        'sockets = ["packet"]\nactions = ["block"]',
        id="dhcp",
    ),
    pytest.param(
        f'[[app]]\nexe = "dnsmasq"\nremotes = ["{NAMESERVER}:53"]\nactions = ["block"]',
        id="its-server",
    ),
    pytest.param('[[app]]\nexe = "http"\nremotes = ["80"]\nactions = ["block"]', id="apt"),
    pytest.param('[global]\nunconfigured_actions = ["log"]', id="only-told"),
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_cuts_nothing_is_not_refused(
    text: str, lifelines: list[Lifeline], tmp_path: Path
) -> None:
    """Else nobody would listen any more."""
    assert lockout.reasons(policy_of(text, tmp_path), MEANT, lifelines) == ()


def test_servers_are_found_in_the_files(host: Host) -> None:
    """Of chrony, timesyncd and apt; comments are none."""
    assert list(clock_servers(host)) == CLOCKS
    servers = {(one.host, one.flow.port, one.identity.user) for one in of_updates(host) if one.host}
    assert servers == {("deb.example", 80, 42), ("other.example", 8443, 42)}


def test_a_proxy_is_what_apt_needs(host: Host) -> None:
    """And not the servers behind it."""
    proxy = host.root / "etc/apt/apt.conf.d/proxy"
    proxy.parent.mkdir()
    proxy.write_text('Acquire::http::Proxy "http://proxy.example:3142";\n')
    servers = {one.host for one in of_updates(host) if one.host}
    assert servers == {"proxy.example", "other.example"}
