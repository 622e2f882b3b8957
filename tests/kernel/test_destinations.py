# SPDX-License-Identifier: Apache-2.0
"""What a rule's lists allow: scope, address, port range, protocol; both sides of each border."""

from dataclasses import dataclass

import pytest

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.network import (
    PRIVATE4,
    REMOTE4,
    REMOTE4_NEAR,
    REMOTE4_OTHER,
    REMOTE6,
    REMOTE6_NEAR,
    REMOTE6_OTHER,
)
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop

LOOP4, LOOP6 = "127.0.0.1", "::1"
MAPPED_LOOP, MAPPED_REMOTE = "::ffff:127.0.0.1", f"::ffff:{REMOTE4}"


@dataclass(frozen=True)
class Map:
    """One rule's destination keys, and where a program with it gets to and where not."""

    name: str
    keys: str
    allowed: tuple[tuple[str, str, int], ...] = ()
    refused: tuple[tuple[str, str, int], ...] = ()


MAPS = (
    Map(
        "ports-hold-for-remote-and-local",
        'ports = ["8086"]',
        allowed=(("tcp", REMOTE4, 8086), ("tcp", LOOP4, 8086), ("udp-send", REMOTE6, 8086)),
        refused=(("tcp", REMOTE4, 8087), ("tcp", LOOP4, 8087), ("udp-send", LOOP6, 8085)),
    ),
    Map(
        "remotes-leave-local-alone",
        'remotes = ["8086"]',
        allowed=(("tcp", REMOTE4, 8086), ("tcp", LOOP4, 9999), ("udp-send", MAPPED_LOOP, 53)),
        refused=(("tcp", REMOTE4, 9999), ("udp-send", REMOTE6, 53)),
    ),
    Map(
        "locals-allow-no-remote",
        'locals = ["8086"]',
        allowed=(("tcp", LOOP4, 8086), ("tcp", LOOP6, 8086), ("tcp", "0.0.0.0", 8086)),
        refused=(("tcp", LOOP4, 8087), ("tcp", REMOTE4, 8086), ("tcp", "::", 8087)),
    ),
    Map(
        "local-false-remote-true",
        "local = false\nremote = true",
        allowed=(("tcp", REMOTE4, 1), ("udp-send", REMOTE6_OTHER, 9), ("tcp", MAPPED_REMOTE, 2)),
        refused=(("tcp", LOOP4, 8086), ("tcp", MAPPED_LOOP, 8086), ("udp-send", "::", 1)),
    ),
    Map(
        "remote-false-local-true",
        "local = true\nremote = false",
        allowed=(("tcp", LOOP4, 1), ("udp-send", LOOP6, 9), ("tcp", "127.255.255.254", 7)),
        refused=(("tcp", PRIVATE4, 8086), ("udp-send", MAPPED_REMOTE, 9)),
    ),
    Map(
        "no-destination-key-allows-nothing",
        "",
        refused=(("tcp", REMOTE4, 8086), ("tcp", LOOP4, 8086), ("udp-send", LOOP6, 53)),
    ),
    Map(
        "empty-list-allows-nothing",
        "ports = []",
        refused=(("tcp", REMOTE4, 8086), ("tcp", LOOP4, 8086)),
    ),
    Map(
        "range-includes-both-ends",
        'remotes = ["8000-8100"]',
        allowed=(("tcp", REMOTE4, 8000), ("tcp", REMOTE6, 8050), ("tcp", REMOTE4, 8100)),
        refused=(("tcp", REMOTE4, 7999), ("tcp", REMOTE4, 8101)),
    ),
    Map(
        "many-ports-and-ranges",
        'remotes = ["22", "1000-1001", "1023-1025", "65535"]',
        allowed=tuple(("tcp", REMOTE4, port) for port in (22, 1000, 1001, 1023, 1024, 1025, 65535)),
        refused=tuple(("tcp", REMOTE4, port) for port in (21, 23, 999, 1002, 1022, 1026, 65534)),
    ),
    Map(
        "one-address-any-port",
        f'remotes = ["{REMOTE4}"]',
        allowed=(("tcp", REMOTE4, 1), ("udp-send", REMOTE4, 65535), ("tcp-mapped", REMOTE4, 5)),
        refused=(("tcp", REMOTE4_NEAR, 1), ("tcp", REMOTE6, 1)),
    ),
    Map(
        "cidr-with-a-port",
        'remotes = ["198.51.100.0/24:443"]',
        allowed=(("tcp", REMOTE4, 443), ("tcp", REMOTE4_NEAR, 443), ("tcp", MAPPED_REMOTE, 443)),
        refused=(("tcp", REMOTE4, 444), ("tcp", REMOTE4_OTHER, 443), ("tcp", PRIVATE4, 443)),
    ),
    Map(
        "address-inside-a-cidr-keeps-the-cidrs-ports",
        f'remotes = ["198.51.100.0/24:443", "{REMOTE4}:8086", "9000"]',
        allowed=(("tcp", REMOTE4, 443), ("tcp", REMOTE4, 8086), ("tcp", REMOTE4, 9000)),
        refused=(("tcp", REMOTE4_NEAR, 8086), ("tcp", REMOTE4_OTHER, 443), ("tcp", REMOTE4, 1)),
    ),
    Map(
        "odd-prefix-length",
        'remotes = ["198.51.100.128/25"]',
        allowed=(("tcp", REMOTE4_NEAR, 80),),
        refused=(("tcp", REMOTE4, 80),),
    ),
    Map(
        "ipv6-prefix-with-a-port",
        'remotes = ["[2001:db8::/64]:443"]',
        allowed=(("tcp", REMOTE6, 443), ("udp-send", REMOTE6_NEAR, 443)),
        refused=(("tcp", REMOTE6_OTHER, 443), ("tcp", REMOTE6, 444), ("tcp", REMOTE4, 443)),
    ),
    Map(
        "ipv6-address",
        f'remotes = ["{REMOTE6}"]',
        allowed=(("tcp", REMOTE6, 443),),
        refused=(("tcp", REMOTE6_NEAR, 443),),
    ),
    Map(
        "ipv4-any-is-not-ipv6-any",
        'remotes = ["0.0.0.0/0:443"]',
        allowed=(("tcp", REMOTE4, 443), ("tcp", MAPPED_REMOTE, 443)),
        refused=(("tcp", REMOTE6, 443),),
    ),
    Map(
        "tcp-only",
        'remotes = ["53/tcp"]',
        allowed=(("tcp", REMOTE4, 53), ("fastopen", REMOTE6, 53)),
        refused=(("udp-send", REMOTE4, 53), ("udp-connect", REMOTE6, 53)),
    ),
    Map(
        "udp-only",
        'remotes = ["198.51.100.0/24:53/udp"]',
        allowed=(("udp-send", REMOTE4, 53), ("udp-connect", REMOTE4_NEAR, 53)),
        refused=(("tcp", REMOTE4, 53), ("udp-send", REMOTE4_OTHER, 53)),
    ),
    Map(
        "local-entries-with-an-address",
        'locals = ["127.0.0.2:8086", "[::1]:8087"]',
        allowed=(("tcp", "127.0.0.2", 8086), ("tcp", LOOP6, 8087)),
        refused=(("tcp", LOOP4, 8086), ("tcp", LOOP6, 8086)),
    ),
)


@dataclass(frozen=True)
class Attempt:
    name: str
    form: str
    address: str
    port: int
    goes_out: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.form}-{self.address}-{self.port}"


ATTEMPTS = [
    Attempt(map_.name, *flow, goes_out)
    for map_ in MAPS
    for goes_out, flows in ((True, map_.allowed), (False, map_.refused))
    for flow in flows
]


def rule(map_: Map) -> str:
    return f'[[app]]\nexe = "{map_.name}"\n{map_.keys}\nactions = ["log", "block"]\n'


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents) -> Agent:
    servers.open(53, 443, 8086, 8087)
    policy = "[whitelist]\nresolvers = false\n" + "\n".join(map(rule, MAPS))
    started, _ = agents.share(policy)
    return started


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_a_program_reaches_its_map_and_nothing_else(
    attempt: Attempt, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Each rule is tried on both sides of its border, by a program it names."""
    talk = programs.standing(workshop.install(attempt.name))
    assert talk.reaches(attempt.form, attempt.address, attempt.port) is attempt.goes_out
