# SPDX-License-Identifier: Apache-2.0
"""One connection between the agent and a broker: whole messages, with descriptors."""

import os
import select
import socket
import struct

from aegis.broker.messages import MESSAGE_MAX, Message, decode, encode
from aegis.errors import BrokerError

FDS_MAX = 2
_GONE = "the other end is gone"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """PID and uid of who made the other end."""
    size = struct.calcsize("3i")  # struct ucred: pid, uid, gid
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


class Wire:
    """*connection*: SOCK_SEQPACKET; not blocking.

    :raises BrokerError: when the other end is not root's
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.setblocking(False)
        self.peer, uid = peer_of(connection)
        if uid != 0:
            connection.close()
            raise BrokerError(f"the other end belongs to uid {uid}, not to root")

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Never waits.

        :raises BrokerError: when it does not go out whole
        """
        data = encode(message)
        try:
            if fds:
                socket.send_fds(self._socket, [data], fds, socket.MSG_NOSIGNAL)
            else:
                self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise BrokerError("the other end does not keep up") from None
        except OSError as error:
            raise BrokerError(_GONE) from error

    def receive(self) -> tuple[Message, tuple[int, ...]] | None:
        """The next one, with its descriptors, which are the caller's; None: not yet.

        :raises BrokerError: when the other end is gone, or does not talk as it should
        """
        try:
            data, fds, flags, _ = _receive(self._socket)
        except BlockingIOError:
            return None
        except OSError as error:
            raise BrokerError(_GONE) from error
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise BrokerError("a message that is too long, or has too many descriptors")
            if not data:
                raise BrokerError(_GONE)
            return decode(data), tuple(fds)
        except BrokerError:
            close_all(fds)
            raise

    def wait(self, seconds: float) -> tuple[Message, tuple[int, ...]]:
        """As ``receive``; blocks until there is one.

        :raises BrokerError: also when none comes in time
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll(seconds * 1000)
        got = self.receive()
        if got is None:
            raise BrokerError(f"no answer within {seconds:g} s")
        return got

    def is_open(self) -> bool:
        """Whether the other end is there; without waiting."""
        poll = select.poll()
        poll.register(self._socket, 0)
        return not poll.poll(0)

    def close(self) -> None:
        self._socket.close()


def _receive(connection: socket.socket) -> tuple[bytes, list[int], int, object]:
    return socket.recv_fds(connection, MESSAGE_MAX, FDS_MAX, socket.MSG_CMSG_CLOEXEC)


def close_all(fds: "list[int] | tuple[int, ...]") -> None:
    for fd in fds:
        os.close(fd)
