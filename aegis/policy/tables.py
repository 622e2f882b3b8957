# SPDX-License-Identifier: Apache-2.0
"""What the kernel is given: plain entries, one generation's worth.

``compile`` makes these from a policy; ``aegis.bpf`` numbers, packs and fills
them. Nothing here knows bytes of structs, map names or generations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aegis.policy.model import Actions, Mode, Protocol, Rule, Scope

Ranges = tuple[tuple[int, int], ...]
"""Sorted, disjoint, non-touching inclusive port ranges within 1..65535."""

ANY_PORT: Ranges = ((1, 65535),)


class Ports(NamedTuple):
    """A port set for each protocol."""

    tcp: Ranges = ()
    udp: Ranges = ()

    def of(self, protocol: Protocol) -> Ranges:
        return self.tcp if protocol is Protocol.TCP else self.udp


class Net(NamedTuple):
    """A prefix of the 128-bit space (IPv4 under ::ffff:0:0/96), per app and scope."""

    app: int
    scope: Scope
    address: bytes  # 16 bytes, network order, host bits zero
    length: int  # 0..128; 128 is an exact host


@dataclass(frozen=True)
class App:
    """One row of the app table; *base* is what any address may have.

    Scope LISTEN: own ports that may be received on; PEER: ``ANY_PORT`` when
    every peer may connect. *rule* is None for app 0, the whitelist.
    """

    rule: Rule | None
    actions: Actions
    base: Mapping[Scope, Ports]
    strict: bool = False
    ignore: bool = False
    needs_trust: bool = False
    needs_argv0: bool = False
    detent: int = 86400  # seconds
    sockets: tuple[str, ...] = ()  # kinds other than TCP's and UDP's it may make


@dataclass(frozen=True)
class Selector:
    """One way to app *app*: all given texts must match.

    *whitelist*: [whitelist] programs rather than a rule (app is 0).
    """

    app: int
    exe: str | None = None
    path: str | None = None
    cmdline: str | None = None
    user: int | None = None
    unit: str | None = None
    any_namespace: bool = False
    whitelist: bool = False


@dataclass(frozen=True)
class Tables:
    """One generation. Of all apps whose selectors match, the highest index governs.

    A net's port set already holds all that covering prefixes of the same app
    and scope, and the app's *base*, allow: the longest match alone decides.
    """

    mode: Mode
    unconfigured_actions: Actions
    deny_socket_fds: bool
    apps: tuple[App, ...]  # [0] is the whitelist and every unconfigured program
    nets: Mapping[Net, Ports]
    selectors: tuple[Selector, ...]
    kill_budget: int = 20  # kills in a minute
    refuses_inbound: bool = False  # whether any packet may have to be dropped
    watches_inbound: bool = True  # whether who comes in matters to anybody
