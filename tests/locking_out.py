# SPDX-License-Identifier: Apache-2.0
"""Policies that lock somebody out, without end, each made by chance.

``lockouts.toml`` has those that somebody thought of. Of these it is known beforehand whom
they cut, since what is listed never holds what is needed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

LATER = "later"  # nothing that is found on a host: it can only be taken back
SSH = 2122
UDP, TCP = "udp", "tcp"

PathOf = Callable[[str], str]
"""Name of a program to its path."""


@dataclass(frozen=True)
class Need:
    """*program* must reach *port* by *protocols*; *cuts*: what a refusal says if it does not."""

    cuts: str
    program: str
    port: int
    protocols: tuple[str, ...]


SSHD = Need("sshd", "sshd", SSH, (TCP,))
CLOCK = Need("time", "chronyd", 123, (UDP,))
OUTBOUND = (
    Need("name resolution", "dnsmasq", 53, (UDP, TCP)),
    Need("DHCP", "dhclient", 67, (UDP,)),
    CLOCK,
    Need("updates", "http", 80, (TCP,)),
    Need(LATER, "tunnel", 8087, (TCP,)),
)
# sshd has as many ways as all the others: it is what one comes in by.
KINDS = ("sshd", "all", *(need.program for need in OUTBOUND), "sshd", "all")
_BLOCKING = (("log", "block"), ("block",), ("kill",), ("log", "kill"))


@dataclass(frozen=True)
class LockOut:
    """*policy* keeps the program of *need* from what it needs."""

    need: Need
    policy: str


def lock_out(chance: Random, kind: str, path_of: PathOf) -> LockOut:
    """One policy, of *kind* (``KINDS``)."""
    if kind == "all":
        return _of_all(chance)
    if kind == "sshd":
        return LockOut(SSHD, _rule(chance, SSHD, path_of, ["remote = true", _not_in(chance)]))
    (need,) = (each for each in OUTBOUND if each.program == kind)
    return LockOut(need, _rule(chance, need, path_of, ["strict = true", *_not_out(chance, need)]))


def _rule(chance: Random, need: Need, path_of: PathOf, lines: list[str]) -> str:
    selectors = [f'exe = "{need.program}"', f'path = "{path_of(need.program)}"']
    if need.program != "http":  # apt's method is _apt's
        selectors.append(f'exe = "{need.program}"\nuser = 0')
    actions = _words(chance.choice(_BLOCKING))
    by_default = chance.random() < 0.25
    head = f"[global]\ndefault_actions = {actions}\n" if by_default else ""
    tail = [] if by_default else [f"actions = {actions}"]
    return "\n".join([head + "[[app]]", chance.choice(selectors), *lines, *tail, ""])


def _of_all(chance: Random) -> LockOut:
    """Every program without a rule of its own; who may come in, or what is whitelisted."""
    inbound = chance.random() < 0.5
    lines = [f"unconfigured_actions = {_words(chance.choice(_BLOCKING))}"]
    lines += [f"inbound = {str(inbound).lower()}", "[whitelist]", "resolvers = false"]
    if not inbound:
        lines.append(
            chance.choice(
                [f"ips = {_words(_elsewhere(chance))}", f"ports = {_words(_ports(chance, CLOCK))}"]
            )
        )
    return LockOut(SSHD if inbound else CLOCK, "\n".join(["[global]", *lines, ""]))


def _not_in(chance: Random) -> str:
    """Nothing of it lets who comes by ssh from 198.51.100.200 in."""
    return chance.choice(
        [
            "listen = []",
            "peers = []",
            f'listen = ["{SSH}/udp"]',
            f"listen = {_words(_ports(chance, SSHD))}",
            f"peers = {_words(_elsewhere(chance))}",
            f'peers = ["2001:db8:{chance.randrange(1, 9999)}::/48"]',
        ]
    )


def _not_out(chance: Random, need: Need) -> list[str]:
    """Nothing of it lets *need* out."""
    other = TCP if UDP in need.protocols else UDP
    return chance.choice(
        [
            [],
            ["remotes = []"],
            [f"remotes = {_words(_ports(chance, need))}"],
            [f"remotes = {_words(f'{net}:{need.port}' for net in _elsewhere(chance))}"],
            [f'remotes = ["{need.port}/{other}"]'],
            [f'locals = ["{need.port}"]', "remote = false"],
        ]
    )


def _ports(chance: Random, need: Need) -> list[str]:
    """One to four, or ranges of them, none with the one that is needed."""
    found = []
    for _ in range(chance.randint(1, 4)):
        low = chance.choice([port for port in range(1, 9000) if port != need.port])
        high = min(low + chance.choice([0, 0, 5, 500]), 65535)
        if low < need.port <= high:
            high = need.port - 1
        found.append(f"{low}-{high}" if high > low else str(low))
    return sorted(set(found))


def _elsewhere(chance: Random) -> list[str]:
    """Networks of 172.16.0.0/12, where nothing is that anybody needs."""
    return sorted(
        {
            f"172.{chance.randint(16, 31)}.{chance.randint(0, 255)}.0/24"
            for _ in range(chance.randint(1, 4))
        }
    )


def _words(words: Iterable[str]) -> str:
    return str(list(words)).replace("'", '"')
