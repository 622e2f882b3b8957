# SPDX-License-Identifier: Apache-2.0
"""Closing a socket from outside: SOCK_DESTROY of sock_diag(7), in its network namespace."""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from aegis._bpf import lib
from aegis.bpf.existing import Held
from aegis.bpf.maps import check
from aegis.errors import KernelError

# linux/sock_diag.h, linux/netlink.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DESTROY = 21
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_ENDS = struct.Struct("!HH16s16s")
_DEVICE_COOKIE = struct.Struct("=III")
_ANY_STATE = (1 << 32) - 1
_NO_COOKIE = (1 << 64) - 1
_V4_MAPPED = 12  # bytes before the IPv4 address
_LACKING = "the kernel has no CONFIG_INET_DIAG_DESTROY"


@dataclass(frozen=True, slots=True)
class Ends:
    """What tells a socket from every other; see :class:`Held`."""

    netns: int
    family: int
    protocol: int
    device: int
    carrier: int
    local: tuple[bytes, int]
    remote: tuple[bytes, int]


def destroy(held: Held | Ends, pids: Iterable[int]) -> bool:
    """Close *held*: its peer gets a reset, its holder ECONNABORTED. *pids*: who may share

    its network namespace. False: it was not found. It was closed meanwhile, or the kernel
    finds another one of these numbers first, as of listeners with SO_REUSEPORT.

    :raises KernelError: when the kernel does not do that.
    """
    with _diag_socket(held.netns, pids) as diag:
        diag.send(_message(held))
        answer = diag.recv(4096)
    kind, error = _HEADER.unpack_from(answer)[1], struct.unpack_from("=i", answer, _HEADER.size)[0]
    if kind != _NLMSG_ERROR:
        raise KernelError(f"sock_diag answered with a message of type {kind}")
    if error in (-errno.EOPNOTSUPP, -errno.EINVAL):
        raise KernelError(f"closing a socket: {_LACKING}")
    if error == -errno.ENOENT:
        return False
    check(error, "closing a socket")
    return True


def _message(held: Held | Ends) -> bytes:
    body = _REQUEST.pack(held.family, held.protocol, 0, 0, _ANY_STATE)
    addresses = [held.local[0], held.remote[0]]
    if held.family == socket.AF_INET:
        addresses = [address[_V4_MAPPED:] for address in addresses]
    body += _ENDS.pack(held.local[1], held.remote[1], *addresses)
    # The kernel compares the cookie: another socket of these numbers is left alone.
    cookie = held.carrier or _NO_COOKIE
    body += _DEVICE_COOKIE.pack(held.device, cookie & _ANY_STATE, cookie >> 32)
    flags = _NLM_F_REQUEST | _NLM_F_ACK
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DESTROY, flags, 1, 0) + body


def _diag_socket(netns: int, pids: Iterable[int]) -> socket.socket:
    """A sock_diag socket of the namespace with that inode number."""
    for pid in ("self", *pids):
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # ended meanwhile
            continue
        try:
            if os.fstat(fd).st_ino == netns:
                return _socket_in(fd, own=pid == "self")
        finally:
            os.close(fd)
    raise KernelError("no process is left in its network namespace")


def _socket_in(netns_fd: int, *, own: bool) -> socket.socket:
    if own:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    what = "entering its network namespace"
    return socket.socket(fileno=check(lib.aegis_diag_socket(netns_fd), what))
