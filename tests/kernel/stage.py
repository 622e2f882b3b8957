# SPDX-License-Identifier: Apache-2.0
"""What some ways of the matrix need around them: modules, receivers, a peer, another's program."""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.kernel.network import REMOTE4, REMOTE4_OTHER, REMOTE6, Network

# Those a kernel has no module of are built in, or absent: the rows say which.
_MODULES = ("sctp", "dccp_ipv4", "l2tp_ip", "tun", "vsock_loopback")
_SOL_DCCP, _DCCP_SERVICE, _SOCK_DCCP = 269, 2, 6
_IPPROTO_DCCP, _IPPROTO_SCTP, _IPPROTO_MPTCP = 33, 132, 262

PEER_PATIENCE = 5.0  # the kernel alone answers; who is not let in hears nothing

_SYS_BPF = 321
_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_SOCK_ADDR, _INET4_CONNECT, _ALLOW_MULTI = 18, 10, 2
# r1 = 0; bpf_set_retval(r1); return 1: "whatever others said, it may".
_OVERRIDE = b"".join(
    struct.pack("<BBhi", *words)
    for words in ((0xB7, 1, 0, 0), (0x85, 0, 0, 187), (0xB7, 0, 0, 1), (0x95, 0, 0, 0))
)

_EMPTY = _OVERRIDE[16:]


def prepare_host(network: Network) -> None:
    """Load what this kernel has; let every group use ping sockets."""
    for module in _MODULES:
        subprocess.run(["modprobe", "--quiet", module], check=False)
    everyone = "0 2147483647"
    network.call(Path("/proc/sys/net/ipv4/ping_group_range").write_text, everyone)


def receivers(network: Network, kind: str, port: int) -> list[socket.socket]:
    """Listening sockets for what *kind* connects to; none where the kernel has no such thing."""
    makers: dict[str, Callable[[int], socket.socket]] = {
        "sctp": _sctp,
        "dccp": _dccp,
        "mptcp": _mptcp,
        "vsock": _vsock,
    }
    if kind not in makers:
        return []
    try:
        return [network.call(makers[kind], port)]
    except OSError:
        return []


def _bound(made: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        made.bind(address)
        made.listen(8)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def _sctp(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_SCTP)
    return _bound(made, ("0.0.0.0", port))


def _dccp(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, _SOCK_DCCP, _IPPROTO_DCCP)
    made.setsockopt(_SOL_DCCP, _DCCP_SERVICE, (42).to_bytes(4, "big"))
    return _bound(made, ("0.0.0.0", port))


def _mptcp(port: int) -> socket.socket:
    return _bound(
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_MPTCP), ("0.0.0.0", port)
    )


def _vsock(port: int) -> socket.socket:
    made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    return _bound(made, (socket.VMADDR_CID_ANY, port))


def accepted(receiver: socket.socket) -> socket.socket | None:
    """Who has come, if anybody."""
    try:
        return receiver.accept()[0]
    except BlockingIOError:
        return None


@contextlib.contextmanager
def second_address(network: Network) -> Iterator[None]:
    """MPTCP servers in *network* announce REMOTE4_OTHER, and clients go there."""

    def ip(*words: str) -> None:
        network.call(subprocess.run, ["ip", "mptcp", *words], check=True)

    ip("limits", "set", "subflows", "2", "add_addr_accepted", "2")
    ip("endpoint", "add", REMOTE4_OTHER, "id", "7", "dev", "lo", "signal")
    try:
        yield
    finally:
        ip("endpoint", "flush")


def visit(network: Network, source: str, port: int, speaks: str) -> socket.socket:
    """A peer at *source* that comes to *port*: connects, or sends one datagram."""
    is_v6 = ":" in source
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if speaks == "udp" else socket.SOCK_STREAM
    number = {"sctp": _IPPROTO_SCTP, "mptcp": _IPPROTO_MPTCP}.get(speaks, 0)
    peer = network.call(socket.socket, family, kind, number)
    peer.settimeout(PEER_PATIENCE)
    peer.bind((source, 0))
    with contextlib.suppress(OSError):  # refused or unanswered: the program's side tells
        peer.connect((REMOTE6 if is_v6 else REMOTE4, port))
        if speaks == "udp":
            peer.send(b"probe")
    return peer


def attach_override(cgroup: Path) -> None:
    """A program of the cgroup's own that calls every connect allowed; gone with the cgroup."""
    _attach_connect4(cgroup, _OVERRIDE)


def attach_empty(cgroup: Path) -> None:
    """A program that only returns: the least that one on connect() can cost."""
    _attach_connect4(cgroup, _EMPTY)


def _attach_connect4(cgroup: Path, program_text: bytes) -> None:
    code, license_text = (
        ctypes.create_string_buffer(program_text),
        ctypes.create_string_buffer(b"GPL"),
    )
    load = struct.pack(
        "<IIQQIIQII16sII", _CGROUP_SOCK_ADDR, len(program_text) // 8, ctypes.addressof(code),
        ctypes.addressof(license_text), 0, 0, 0, 0, 0, b"of_a_test", 0, _INET4_CONNECT,
    )  # fmt: skip
    program = _bpf(_PROG_LOAD, load)
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _bpf(_PROG_ATTACH, struct.pack("<IIII", directory, program, _INET4_CONNECT, _ALLOW_MULTI))
    finally:
        os.close(directory)
        os.close(program)


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(libc.syscall(_SYS_BPF, command, buffer, len(attributes)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
