# SPDX-License-Identifier: Apache-2.0
"""What history is made of: programs, the kernel's sums, and facts about them."""

from dataclasses import dataclass
from typing import NamedTuple

from aegis.events.event import IdentityFlag
from aegis.policy.model import Address, Direction, Verdict


@dataclass(frozen=True, slots=True)
class Program:
    """An executed file. Two of one path differ by *identity*: one may be in a container.

    Text holds undecodable bytes as surrogate escapes: never print it raw.
    """

    path: str  # "": the kernel had no room for one more
    identity: IdentityFlag

    @property
    def name(self) -> str:
        """Base name of the executed file."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def trusted(self) -> bool:
        """Whether a rule by path would be about this very program."""
        return IdentityFlag.TRUSTED in self.identity and IdentityFlag.SEEDED not in self.identity


ANYWHERE = b"*"  # in place of an address: of flows that the kernel had no room for one by one
UNKNOWN_PROGRAM = Program("", IdentityFlag.LOST)


class Sum(NamedTuple):
    """What one program did alike in one epoch of the kernel. Times: ns of CLOCK_BOOTTIME."""

    epoch: int
    program: int  # the kernel's number for it; 0: it had no room for one more
    direction: Direction
    protocol: int  # IANA
    verdict: Verdict
    address: bytes  # 16, network order, IPv4 mapped; empty: of making a socket; or ANYWHERE
    port: int
    decisions: int
    reports: int  # of them off the map
    first_boot_ns: int
    last_boot_ns: int


class Fact(NamedTuple):
    """What one program did alike, ever. Times: seconds of the wall clock as known today."""

    program: Program
    direction: Direction
    protocol: int  # IANA
    address: Address | None  # the peer's; None: of making a socket, or inbound of a port taken
    port: int  # outbound the peer's, inbound our own, of a socket its enum aegis_socket bit
    verdict: Verdict
    first: float
    last: float
    decisions: int
    reports: int  # of them off the map, told or not
    anywhere: bool = False  # many flows in one; neither address nor port is known

    @property
    def hook(self) -> str:
        """``socket``, ``listen``, or, with a peer, ``connect``."""
        if self.address is not None or self.anywhere:
            return "connect"
        return "socket" if self.direction is Direction.OUT else "listen"
