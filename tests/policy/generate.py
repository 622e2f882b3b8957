# SPDX-License-Identifier: Apache-2.0
"""Random policies, resolutions, identities and flows that lie in wait for each other.

Small pools, so that prefixes nest and touch, ports sit on the edges of ranges,
and selectors tie. Reusable against the real kernel: everything here fits it.
Drawn from a ``Random``: seeded it is fast and repeatable, Hypothesis's own shrinks.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random
from typing import TypeVar

from aegis.config.limits import CMDLINE_BYTES, EXE_BYTES, PATH_BYTES
from aegis.config.texts import SOCKETS
from aegis.policy.model import (
    KERNEL,
    Actions,
    Address,
    Direction,
    Entry,
    Flow,
    Identity,
    Mode,
    Policy,
    Protocol,
    Resolution,
    Rule,
    Selectors,
    Settings,
    Where,
    Whitelist,
)

T = TypeVar("T")

WHERE = Where("test.toml", 1)
IPV4 = """
0.0.0.0 0.0.0.1 10.0.0.0 10.0.0.1 10.0.0.255 10.0.1.0 10.255.255.255 11.0.0.0 126.255.255.255
127.0.0.0 127.0.0.1 127.255.255.255 128.0.0.0 192.0.2.7 192.0.2.8 255.255.255.255
"""
IPV6 = """
:: ::1 ::2 ::127.0.0.1 ::fffe:ffff:ffff ::1:0:0:0 ::ffff:0.0.0.0 ::ffff:10.0.0.1
::ffff:127.0.0.1 ::ffff:192.0.2.7 2001:db8:: 2001:db8::1 2001:db8::2 2001:db8:0:1:: 2001:db9::
fe80::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
"""
IPV4_NETS = """
0.0.0.0/0 0.0.0.0/1 128.0.0.0/1 0.0.0.0/31 0.0.0.0/32 10.0.0.0/8 10.0.0.0/9 10.128.0.0/9
10.0.0.0/24 10.0.1.0/24 10.0.0.0/31 10.0.0.1/32 126.0.0.0/7 127.0.0.0/8 127.0.0.0/9
127.0.0.1/32 192.0.2.7/32 192.0.2.0/24
"""
IPV6_NETS = """
::/0 ::/1 8000::/1 ::/64 ::/80 ::/95 ::fffe:0:0/95 ::/96 ::/126 ::/127 ::/128 ::1/128
2001:db8::/32 2001:db8::/64 2001:db8::/127 2001:db8::1/128 fe80::/10
"""
ADDRESSES: tuple[Address, ...] = (
    *map(IPv4Address, IPV4.split()),
    *map(IPv6Address, IPV6.split()),
)
NETWORKS: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, IPV4_NETS.split()),
    *map(IPv6Network, IPV6_NETS.split()),
)
LOCAL_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ["127.0.0.0/8", "127.0.0.0/9", "127.0.0.1/32", "0.0.0.0/32"]),
    *map(IPv6Network, ["::1/128", "::/128", "::/127"]),
)
MAPPED = IPv6Network("::ffff:0:0/96")

PORTS = (1, 2, 52, 53, 54, 1023, 1024, 1025, 8000, 8050, 8086, 8100, 8101, 65534, 65535)
NAMES = ("bob.com", "both.example", "void.example")
# As long as the kernel keeps them, less what a NUL takes; one byte more is another text.
LONG_EXE = "x" * EXE_BYTES
LONG_PATH = "/" + "p" * (PATH_BYTES - 1)
LONG_CMDLINE = "/c " + "c" * (CMDLINE_BYTES - 3)
EXES = ("telegraf", "nc", "systemd", LONG_EXE)
PATHS = ("/usr/bin/telegraf", "/usr/bin/nc", "/opt/nc", "/jail/opt/nc", LONG_PATH, KERNEL)
ARGVS: tuple[tuple[str, ...], ...] = (
    ("nc",),
    ("nc", "-l", "8086"),
    ("nc", "-l  8086"),
    ("nc -l",),
    ("/bin/sh", "-e", "/opt/nc", "-l"),
    ("",),
    (),
    tuple(LONG_CMDLINE.split(" ")),
    ("/c", LONG_CMDLINE[3:] + "c"),
    ("/c", LONG_CMDLINE[3:], "x" * 300, "y"),
    ("x" * 600,),
    ("/bin/sh", *LONG_CMDLINE.split(" "), "z"),
)
CMDLINES = (
    *("nc", "nc -l", "nc -l 8086", "n", "nc ", "/opt/nc", "/opt/nc -l", "/bin/sh -e"),
    *("/c", LONG_CMDLINE),
)
UNITS = ("telegraf.service", "nc.service")
USERS = (0, 1000)
PROTOCOLS = (frozenset(Protocol), frozenset({Protocol.TCP}), frozenset({Protocol.UDP}))
ACTIONS = (
    Actions(),
    Actions(allow=True),
    Actions(allow=True, log=True),
    Actions(log=True),
    Actions(log=True, notify=True),
    Actions(block=True),
    Actions(log=True, kill=True),
)


def make_network(rng: Random) -> IPv4Network | IPv6Network:
    """The pool, or any prefix around an address of it. Mapped ones the model stores as IPv4."""
    if rng.random() < 0.6:
        return rng.choice(NETWORKS)
    address, length = rng.choice(ADDRESSES), rng.randrange(129)
    if isinstance(address, IPv6Address):
        network = IPv6Network((address, length), strict=False)
        if not network.subnet_of(MAPPED):
            return network
        address = address.ipv4_mapped or IPv4Address(0)
    return IPv4Network((address, length % 33), strict=False)


def make_entry(rng: Random, kinds: str) -> Entry:
    """*kinds*: p any address, n a name, a a network, l one of this host."""
    kind, local = rng.choice(kinds), rng.choice(LOCAL_NETWORKS)
    first, last = sorted((rng.choice(PORTS), rng.choice(PORTS)))
    if rng.random() < 0.5:
        first, last = rng.choice([(1, 65535), (first, first), (last, last)])
    return Entry(
        text="entry",
        where=Where("test.toml", rng.randrange(1, 99)),
        network=make_network(rng) if kind == "a" else local if kind == "l" else None,
        name=rng.choice(NAMES) if kind == "n" else None,
        first_port=first,
        last_port=last,
        protocols=rng.choice(PROTOCOLS),
    )


def make_list(rng: Random, kinds: str) -> tuple[Entry, ...]:
    return tuple(make_entry(rng, kinds) for _ in range(rng.choice((0, 1, 2, 3, 6))))


def make_addresses(rng: Random) -> tuple[Entry, ...]:
    """As in ``peers`` and ``whitelist.ips``: no ports."""
    count = rng.choice((0, 1, 2, 4))
    return tuple(Entry("entry", WHERE, network=make_network(rng)) for _ in range(count))


def maybe(rng: Random, make: Callable[[], T], chance: float = 0.5) -> T | None:
    return make() if rng.random() < chance else None


def make_selectors(rng: Random) -> Selectors:
    while True:
        found = Selectors(
            exe=maybe(rng, lambda: rng.choice(EXES)),
            path=maybe(rng, lambda: rng.choice(PATHS), 0.3),
            cmdline=maybe(rng, lambda: rng.choice(CMDLINES), 0.3),
            user=maybe(rng, lambda: rng.choice(USERS), 0.2),
            unit=maybe(rng, lambda: rng.choice(UNITS), 0.2),
        )
        if found.count():
            return found


def make_rule(rng: Random, selectors: Selectors) -> Rule:
    switches = (None, None, True, False)
    remotes = maybe(rng, lambda: make_list(rng, "pnaa"))
    locals_ = maybe(rng, lambda: make_list(rng, "pnall"))
    return Rule(
        selectors=selectors,
        where=Where("rule.toml", rng.randrange(1, 99)),
        actions=rng.choice(ACTIONS),
        any_namespace=rng.random() < 0.2,
        untrusted_file=rng.random() < 0.2,
        ignore=rng.random() < 0.1,
        ports=maybe(rng, lambda: make_list(rng, "p"), 0.4),
        remotes=remotes,
        locals=locals_,
        local=rng.choice(switches) if locals_ is None else None,
        remote=rng.choice(switches) if remotes is None else None,
        listen=maybe(rng, lambda: make_list(rng, "p")),
        peers=maybe(rng, lambda: make_addresses(rng)),
        strict=rng.random() < 0.3,
        sockets=tuple(rng.sample(SOCKETS, rng.choice((0, 0, 1, 2)))),
    )


def precedence(rule: Rule) -> tuple[int, bool, bool, bool]:
    """More selectors win; of equal number path over cmdline over exe; then the later."""
    want = rule.selectors
    kinds = (want.path is not None, want.cmdline is not None, want.exe is not None)
    return want.count(), *kinds


def make_policy(rng: Random) -> Policy:
    # A crowd now and then: some mistakes need four rules that match one process.
    count = rng.randrange(6) if rng.random() < 0.75 else rng.randrange(10, 30)
    wanted = dict.fromkeys(make_selectors(rng) for _ in range(count))
    programs = rng.sample((*EXES, *PATHS), rng.choice((0, 0, 1, 2)))
    return Policy(
        settings=Settings(
            mode=rng.choice(list(Mode)),
            unconfigured_actions=rng.choice(ACTIONS),
            inbound=rng.random() < 0.7,
        ),
        whitelist=Whitelist(
            ips=maybe(rng, lambda: make_addresses(rng)) or (),
            ports=maybe(rng, lambda: make_list(rng, "p")) or (),
            programs=tuple((program, WHERE) for program in programs),
            resolvers=rng.random() < 0.5,
            where=WHERE,
        ),
        rules=tuple(sorted((make_rule(rng, want) for want in wanted), key=precedence)),
    )


def make_resolution(rng: Random) -> Resolution:
    """``void.example`` never resolves."""
    names = {name: frozenset(rng.sample(ADDRESSES, rng.randrange(4))) for name in NAMES[:2]}
    return Resolution(names, tuple(rng.sample(ADDRESSES, rng.randrange(3))))


def make_paths(rng: Random, path: str | None) -> tuple[str | None, str | None]:
    """A whole path and, for some, what is left of it after a chroot."""
    if path is None or path.count("/") < 2 or rng.random() < 0.7:
        return path, None
    if len(os.fsencode(path)) < PATH_BYTES - 5 and rng.random() < 0.5:
        return f"/jail{path}", path
    return path, path[path.index("/", 1) :]


def make_identity(rng: Random, policy: Policy) -> Identity:
    """Anyone; more often than not someone a rule is about, or nearly so."""
    rule = rng.choice(policy.rules) if policy.rules else None
    want = rule.selectors if rule and rng.random() < 0.8 else Selectors()
    argv = tuple(want.cmdline.split(" ")) if want.cmdline else rng.choice((*ARGVS, None))
    script = rng.randrange(1, len(argv)) if argv and argv[1:] and rng.random() < 0.5 else None
    host_fs = rng.random() < 0.8
    path, inner_path = make_paths(rng, want.path or rng.choice((*PATHS, None)))
    return Identity(
        path=path,
        inner_path=inner_path,
        exe=want.exe or rng.choice((*EXES, None)),
        argv=argv,
        script_index=script,
        argv0_false=rng.random() < 0.2,
        user=rng.choice(USERS) if want.user is None else want.user,
        unit=want.unit or rng.choice((*UNITS, None)),
        host_fs=host_fs,
        trusted=host_fs and rng.random() < 0.7,  # the kernel sets it only with host_fs
    )


@dataclass(frozen=True)
class Edges:
    """What a policy mentions, and its neighbours: where mistakes would be."""

    addresses: tuple[Address, ...]
    ports: tuple[int, ...]
    entries: tuple[Entry, ...] = ()  # with an address: what is listed by it and not beside it


def edges(policy: Policy) -> Edges:
    addresses: set[Address] = set(ADDRESSES)
    ports: set[int] = {0, 53}
    entries = all_entries(policy)
    for entry in entries:
        if entry.network is not None:
            first, last = entry.network[0], entry.network[-1]
            addresses |= {first, last}
            if int(first) > 0:
                addresses.add(first - 1)
            if int(last) < 2**last.max_prefixlen - 1:
                addresses.add(last + 1)
        ports |= {entry.first_port - 1, entry.first_port, entry.last_port, entry.last_port + 1}
    order = sorted(addresses, key=lambda a: (a.version, int(a)))
    placed = tuple(entry for entry in entries if entry.network is not None)
    return Edges(tuple(order), tuple(sorted(p for p in ports if p < 65536)), placed)


def all_entries(policy: Policy) -> list[Entry]:
    found = [*policy.whitelist.ips, *policy.whitelist.ports]
    for rule in policy.rules:
        for item in fields(rule):
            value = getattr(rule, item.name)
            if isinstance(value, tuple):
                found += [entry for entry in value if isinstance(entry, Entry)]
    return found


def make_flow(rng: Random, around: Edges) -> Flow:
    """At an edge, in any spelling; an inbound flow always has a port of ours. Or a socket."""
    address, port = rng.choice(around.addresses), rng.choice(around.ports)
    if around.entries and rng.random() < 0.4:
        address, port = make_hit(rng, rng.choice(around.entries))
    if isinstance(address, IPv4Address) and rng.random() < 0.3:
        address = IPv6Address(f"::ffff:{address}")
    direction = Direction.IN if rng.random() < 0.25 else Direction.OUT
    protocol = rng.choice(list(Protocol))
    if rng.random() < 0.1:
        return Flow(address, port, protocol, socket=rng.choice(SOCKETS))
    return Flow(
        address=address,
        port=port or 1 if direction is Direction.IN else port,
        protocol=protocol,
        direction=direction,
        listening=direction is Direction.IN and rng.random() < 0.4,
        udp_connect=protocol is Protocol.UDP and rng.random() < 0.5,
    )


def make_hit(rng: Random, entry: Entry) -> tuple[Address, int]:
    """An address of *entry*, and a port of it or just beside it."""
    assert entry.network is not None
    address = rng.choice((entry.network[0], entry.network[-1]))
    first, last = entry.first_port, entry.last_port
    return address, rng.choice((first - 1, first, last, min(last + 1, 65535)))
