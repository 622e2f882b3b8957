# SPDX-License-Identifier: Apache-2.0
"""One broker: takes connections of root's, does what it is there for, and nothing else.

Started by systemd, it is given the socket it listens on and ends when nobody has asked
for a while; forked by the agent (``starter``), it is given its one connection.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from aegis.bpf.rights import keep_rights
from aegis.broker.deeds import DEEDS, Deeds, Reply
from aegis.broker.messages import Message
from aegis.broker.wire import Wire
from aegis.errors import BrokerError, KernelError
from aegis.privileges import BROKERS, NAMES

IDLE_S = 20.0
NOBODY = 65534
LISTEN_FD = 3  # sd_listen_fds(3)

Say = Callable[[str], None]


class Broker:
    """*name*: of :data:`DEEDS`; *say* gets a line of whatever is refused."""

    def __init__(self, name: str, say: Say) -> None:
        self._deeds = DEEDS[name]
        self._say = say
        self._open = 0
        self._idle = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, listener: socket.socket) -> None:
        """Return when there was no connection for ``IDLE_S``."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        loop.add_reader(listener, lambda: self._accept(listener))
        try:
            while True:
                await asyncio.sleep(IDLE_S)
                if not self._serving:
                    return
                await asyncio.wait(self._serving)
        finally:
            loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            task = asyncio.create_task(self.serve(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def serve(self, connection: socket.socket) -> None:
        """Answer until the other end is gone, or says what it may not."""
        try:
            wire = Wire(connection)
        except BrokerError as error:
            self._say(str(error))
            return
        deeds, closed = self._deeds(wire.peer, _replying(wire)), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(wire, lambda: self._read(wire, deeds, closed))
        await closed.wait()
        loop.remove_reader(wire)
        await deeds.finish()
        wire.close()

    def _read(self, wire: Wire, deeds: Deeds, closed: asyncio.Event) -> None:
        if closed.is_set():
            return
        try:
            got = wire.receive()
            if got is not None:
                deeds.take(*got)
        except BrokerError as error:
            if wire.is_open():
                self._say(f"a connection is closed: {error}")
            closed.set()


def _replying(wire: Wire) -> Reply:
    def reply(message: Message, fds: tuple[int, ...] = (), /) -> None:
        with suppress(BrokerError):  # nobody wants to know any more
            wire.send(message, fds)

    return reply


def serve_socket(name: str, say: Say) -> None:
    """Started by systemd, whose unit says which rights there are."""
    if os.environ.get("LISTEN_FDS") != "1" or os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise BrokerError("started without a socket: systemd starts this, see aegis(8)")
    listener = socket.socket(fileno=LISTEN_FD)
    os.set_inheritable(LISTEN_FD, False)
    asyncio.run(_listen(name, listener, say))


async def _listen(name: str, listener: socket.socket, say: Say) -> None:
    await Broker(name, say).listen(listener)


def serve_forked(name: str, connection: socket.socket, say: Say) -> None:
    """In a child of the agent's starter: lowers its rights, and serves."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lower_rights(name)
    asyncio.run(_serve(name, connection, say))


async def _serve(name: str, connection: socket.socket, say: Say) -> None:
    await Broker(name, say).serve(connection)


def lower_rights(name: str) -> None:
    """To what this broker needs; of those that were held."""
    if name == NAMES and os.geteuid() == 0:
        with suppress(PermissionError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    with suppress(KernelError):
        keep_rights(BROKERS[name])
