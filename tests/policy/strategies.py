# SPDX-License-Identifier: Apache-2.0
"""Random policies, resolutions, identities and flows that lie in wait for each other.

Small pools, so that prefixes nest and touch, ports sit on the edges of ranges,
and selectors tie. Reusable against the real kernel: everything here fits it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import strategies as st

from aegis.policy.model import (
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
PORTS = (1, 2, 52, 53, 54, 1023, 1024, 1025, 8000, 8050, 8086, 8100, 8101, 65534, 65535)
NAMES = ("bob.com", "void.example", "both.example")
EXES = ("telegraf", "nc", "systemd")
PATHS = ("/usr/bin/telegraf", "/usr/bin/nc", "/opt/nc")
ARGVS: tuple[tuple[str, ...], ...] = (
    ("nc",),
    ("nc", "-l", "8086"),
    ("nc", "-l  8086"),
    ("nc -l",),
    ("/bin/sh", "-e", "/opt/nc", "-l"),
    ("",),
    (),
)
CMDLINES = ("nc", "nc -l", "nc -l 8086", "n", "nc ", "/opt/nc", "/opt/nc -l", "/bin/sh -e")
UNITS = ("telegraf.service", "nc.service")
USERS = (0, 1000)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    if draw(st.integers(0, 3)) == 0:
        return (1, 65535)
    first, last = draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))
    return (first, first) if draw(st.booleans()) else (min(first, last), max(first, last))


protocols = st.sampled_from(
    [frozenset(Protocol), frozenset({Protocol.TCP}), frozenset({Protocol.UDP})]
)


def networks() -> st.SearchStrategy[IPv4Network | IPv6Network]:
    """The pool, or any prefix around an address of the pool."""

    def around(address: Address, length: int) -> IPv4Network | IPv6Network:
        if isinstance(address, IPv4Address):
            return IPv4Network((address, length % 33), strict=False)
        mapped = address.ipv4_mapped
        if mapped is not None:  # the model stores these as IPv4
            return IPv4Network((mapped, length % 33), strict=False)
        return IPv6Network((address, length), strict=False)

    arbitrary = st.builds(around, st.sampled_from(ADDRESSES), st.integers(0, 128))
    return (st.sampled_from(NETWORKS) | arbitrary).filter(_not_mapped)


def _not_mapped(network: IPv4Network | IPv6Network) -> bool:
    mapped = IPv6Network("::ffff:0:0/96")
    return isinstance(network, IPv4Network) or not network.subnet_of(mapped)


@st.composite
def entries(draw: st.DrawFn, kinds: str = "pna") -> Entry:
    """*kinds*: p any address, n a name, a a network."""
    kind = draw(st.sampled_from(kinds))
    first, last = draw(ranges())
    return Entry(
        text="entry",
        where=draw(st.builds(Where, st.just("test.toml"), st.integers(1, 99))),
        network=draw(networks()) if kind == "a" else None,
        name=draw(st.sampled_from(NAMES)) if kind == "n" else None,
        first_port=first,
        last_port=last,
        protocols=draw(protocols),
    )


def lists(kinds: str) -> st.SearchStrategy[tuple[Entry, ...]]:
    return st.lists(entries(kinds), max_size=5).map(tuple)


def addresses_only() -> st.SearchStrategy[tuple[Entry, ...]]:
    """As in ``peers`` and ``whitelist.ips``."""
    entry = st.builds(Entry, text=st.just("entry"), where=st.just(WHERE), network=networks())
    return st.lists(entry, max_size=4).map(tuple)


actions = st.sampled_from(
    [
        Actions(),
        Actions(allow=True),
        Actions(allow=True, log=True),
        Actions(log=True),
        Actions(log=True, notify=True),
        Actions(block=True),
        Actions(log=True, kill=True),
    ]
)

selectors = st.builds(
    Selectors,
    exe=st.none() | st.sampled_from(EXES),
    path=st.none() | st.sampled_from(PATHS),
    cmdline=st.none() | st.sampled_from(CMDLINES),
    user=st.none() | st.sampled_from(USERS),
    unit=st.none() | st.sampled_from(UNITS),
).filter(lambda s: s.count() > 0)

often = st.sampled_from([False, False, False, True])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    def maybe(strategy: st.SearchStrategy[tuple[Entry, ...]]) -> tuple[Entry, ...] | None:
        return draw(st.none() | strategy)

    remotes, local_list = maybe(lists("pna")), maybe(lists("pna"))
    switch = st.sampled_from([None, None, True, False])
    return Rule(
        selectors=draw(selectors),
        where=draw(st.builds(Where, st.just("rule.toml"), st.integers(1, 99))),
        actions=draw(actions),
        any_namespace=draw(often),
        untrusted_file=draw(often),
        ignore=draw(often),
        ports=maybe(lists("p")),
        remotes=remotes,
        locals=local_list,
        local=draw(switch) if local_list is None else None,
        remote=draw(switch) if remotes is None else None,
        listen=maybe(lists("p")),
        peers=maybe(addresses_only()),
        strict=draw(often),
    )


def precedence(rule: Rule) -> tuple[int, int]:
    """More selectors win; of equal number path over cmdline over exe; then the later."""
    want = rule.selectors
    best = 3 if want.path else 2 if want.cmdline else 1 if want.exe else 0
    return want.count(), best


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    found = draw(st.lists(rules(), max_size=5, unique_by=lambda r: r.selectors))
    programs = st.lists(st.sampled_from((*EXES, *PATHS)), max_size=2, unique=True)
    return Policy(
        settings=Settings(
            mode=draw(st.sampled_from(Mode)),
            unconfigured_actions=draw(actions),
            inbound=draw(st.booleans()),
        ),
        whitelist=Whitelist(
            ips=draw(st.just(()) | addresses_only()),
            ports=draw(st.just(()) | lists("p")),
            programs=tuple((program, WHERE) for program in draw(st.just([]) | programs)),
            resolvers=draw(st.booleans()),
            where=WHERE,
        ),
        rules=tuple(sorted(found, key=precedence)),
    )


@st.composite
def resolutions(draw: st.DrawFn) -> Resolution:
    some = st.frozensets(st.sampled_from(ADDRESSES), max_size=3)
    names: Mapping[str, frozenset[Address]] = {
        name: draw(some) for name in NAMES if name != "void.example"
    }
    return Resolution(names, tuple(draw(st.lists(st.sampled_from(ADDRESSES), max_size=2))))


@st.composite
def identities(draw: st.DrawFn) -> Identity:
    argv = draw(st.none() | st.sampled_from(ARGVS))
    script = draw(st.none() | st.integers(1, len(argv) - 1)) if argv and argv[1:] else None
    host_fs = draw(st.sampled_from([True, True, True, False]))
    return Identity(
        path=draw(st.none() | st.sampled_from(PATHS)),
        exe=draw(st.none() | st.sampled_from(EXES)),
        argv=argv,
        script_index=script,
        user=draw(st.sampled_from(USERS)),
        unit=draw(st.none() | st.sampled_from(UNITS)),
        host_fs=host_fs,
        trusted=host_fs and draw(st.booleans()),  # the kernel sets it only with host_fs
    )


@dataclass(frozen=True)
class Edges:
    """What a policy mentions: where its mistakes would be."""

    addresses: tuple[Address, ...]
    ports: tuple[int, ...]


def edges(policy: Policy) -> Edges:
    addresses: set[Address] = set(ADDRESSES)
    ports: set[int] = {0, 53}
    for entry in all_entries(policy):
        if entry.network is not None:
            first, last = entry.network[0], entry.network[-1]
            addresses |= {first, last}
            if int(first) > 0:
                addresses.add(first - 1)
            if int(last) < 2**last.max_prefixlen - 1:
                addresses.add(last + 1)
        ports |= {entry.first_port - 1, entry.first_port, entry.last_port, entry.last_port + 1}
    order = sorted(addresses, key=lambda a: (a.version, int(a)))
    return Edges(tuple(order), tuple(sorted(p for p in ports if p < 65536)))


def all_entries(policy: Policy) -> list[Entry]:
    found = [*policy.whitelist.ips, *policy.whitelist.ports]
    for rule in policy.rules:
        for item in fields(rule):
            value = getattr(rule, item.name)
            if isinstance(value, tuple):
                found += [entry for entry in value if isinstance(entry, Entry)]
    return found


@st.composite
def flows(draw: st.DrawFn, policy: Policy) -> Flow:
    """Edges of *policy*, in every spelling; an inbound flow always has a port of ours."""
    around = edges(policy)
    address = draw(st.sampled_from(around.addresses))
    if isinstance(address, IPv4Address) and draw(st.booleans()):
        address = IPv6Address(f"::ffff:{address}")
    direction = draw(st.sampled_from(Direction))
    port = draw(st.sampled_from(around.ports))
    protocol = draw(st.sampled_from(Protocol))
    return Flow(
        address=address,
        port=port or 1 if direction is Direction.IN else port,
        protocol=protocol,
        direction=direction,
        udp_connect=protocol is Protocol.UDP and draw(st.booleans()),
    )
