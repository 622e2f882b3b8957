# SPDX-License-Identifier: Apache-2.0
"""What of programs' traffic is enforced, only seen or not seen, by what is attached.

Not by what a kernel of some version should do: tests/kernel/test_coverage.py holds
this table to what was measured on each (docs/coverage.md).
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    ENFORCED = "enforced"
    SEEN = "only seen"
    NOT_SEEN = "not seen"


@dataclass(frozen=True)
class Traffic:
    """A kind of traffic, and the programs that decide it and tell of it, all of them needed."""

    name: str
    says: str
    enforced_by: tuple[str, ...] = ()
    seen_by: tuple[str, ...] = ()

    def level(self, attached: Collection[str]) -> Level:
        """What becomes of it with the programs *attached*."""
        if self.enforced_by and set(self.enforced_by) <= set(attached):
            return Level.ENFORCED
        if self.seen_by and set(self.seen_by) <= set(attached):
            return Level.SEEN
        return Level.NOT_SEEN


_CONNECT = ("aegis_connect4", "aegis_connect6")
_SENDMSG = ("aegis_sendmsg4", "aegis_sendmsg6")
_BIND = ("aegis_bind4", "aegis_bind6")
_OTHER = ("aegis_socket_create",)  # kernel/lsm.bpf.c, where the BPF LSM is active
_CAME = ("aegis_sockops", "aegis_recvmsg4", "aegis_recvmsg6")

TRAFFIC = (
    Traffic("tcp", "TCP and MPTCP connections, also by Fast Open and io_uring", _CONNECT),
    Traffic("udp", "UDP datagrams", (*_CONNECT, *_SENDMSG)),
    Traffic("socket", "SCTP, DCCP, UDP-Lite, raw and L2TP sockets", ("aegis_socket",)),
    Traffic(
        "listen",
        "ports to listen and receive on (enforced while a rule has listen or peers)",
        (*_BIND, "aegis_ingress"),
        _CAME,
    ),
    Traffic(
        "peer",
        "who connects and sends (enforced while a rule has listen or peers)",
        (*_BIND, "aegis_ingress"),
        _CAME,
    ),
    Traffic("subflow", "MPTCP subflows to further addresses of the peer", _CONNECT),
    Traffic("activated", "who connects to a TCP listener that another program made"),
    Traffic("inherited", "connections a program was born with"),
    Traffic(
        "passed",
        "connected sockets passed by another program or taken from one"
        " (refused with deny_socket_fds where the BPF LSM is active)",
    ),
    Traffic("ping", "ICMP echo (ping) sockets, which every program may use"),
    Traffic("frame", "frames through AF_PACKET and AF_XDP", _OTHER),
    Traffic("tun", "packets through a tun device of the program's own"),
    Traffic("vsock", "vsock connections, to the hypervisor and to this machine", _OTHER),
)
