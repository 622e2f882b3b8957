# SPDX-License-Identifier: Apache-2.0
"""What arrives, whatever sent it: every packet on every device of a network namespace."""

import itertools
import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import unpack_from

from tests.kernel.network import Network
from tests.kernel.settings import PATIENCE

_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_ETH_P_IPV6 = 0x86DD
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 23
_MARKER_PORT = 9

_PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    58: "icmp6",
    115: "l2tp",
    132: "sctp",
    136: "udplite",
    253: "raw",
}
# Where the port is: in the second word of the header. An echo request's number stands in for
# it; L2TP puts a session of zero before what the program sent.
_PORT_AT = {"icmp": 6, "icmp6": 6, "l2tp": 6}
_ECHO_REQUESTS = (8, 128)
_SYN_ACK = 0x12
_SYN = 0x02


@dataclass(frozen=True)
class Arrival:
    """*kind* is the protocol's name; of TCP a first SYN is ``tcp``, our text ``tcp-data``."""

    kind: str
    address: IPv4Address | IPv6Address
    port: int


class Tap:
    """Sees all packets received in *network* from its making on."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._markers = itertools.count(1)
        all_packets = socket.htons(_ETH_P_ALL)
        self._socket = network.call(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, all_packets)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.settimeout(PATIENCE)

    def take(self) -> set[Arrival]:
        """All that arrived since the last call, or before the one below ends."""
        marker = f"marker {next(self._markers)}".encode()
        with self._network.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(marker, ("127.0.0.1", _MARKER_PORT))
        found: set[Arrival] = set()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            data, origin = self._socket.recvfrom(1 << 16)
            if marker in data:
                return found
            # The loopback device shows each packet twice, going and coming.
            if origin[2] != socket.PACKET_OUTGOING:
                found |= _arrivals(data, origin[1])
        raise TimeoutError("the tap's own marker did not arrive")

    def close(self) -> None:
        self._socket.close()


def _arrivals(data: bytes, ethertype: int) -> set[Arrival]:
    if ethertype == _ETH_P_IP:
        number, address, payload = data[9], ip_address(data[16:20]), data[(data[0] & 15) * 4 :]
    elif ethertype == _ETH_P_IPV6:
        number, address, payload = data[6], ip_address(data[24:40]), data[40:]
    else:
        return set()
    name = _PROTOCOLS.get(number, "")
    if len(payload) < 8 or not name or (name.startswith("icmp") and not _is_echo(payload)):
        return set()
    (port,) = unpack_from("!H", payload, _PORT_AT.get(name, 2))
    kinds = _tcp_kinds(payload) if name == "tcp" else {name}
    return {Arrival(kind, address, port) for kind in kinds}


def _is_echo(payload: bytes) -> bool:
    return payload[0] in _ECHO_REQUESTS


def _tcp_kinds(payload: bytes) -> set[str]:
    kinds = set()
    if payload[13] & _SYN_ACK == _SYN:
        kinds.add("tcp")
    if b"probe" in payload:
        kinds.add("tcp-data")
    return kinds
