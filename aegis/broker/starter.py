# SPDX-License-Identifier: Apache-2.0
"""Without systemd: a process forked off the agent before it has threads, which forks brokers.

Forked before the agent's modules are imported: each page that both had would be there twice
as soon as the agent counts a reference in it. A broker imports what it needs itself.
"""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from aegis.bpf.rights import keep_rights
from aegis.errors import BrokerError, KernelError
from aegis.privileges import BROKERS

_NAME_MAX = 64

Say = Callable[[str], None]


class Starter:
    """Made while there is one thread, and nothing open that a broker must not have."""

    def __init__(self, say: Say) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        try:
            self._socket.close()
            _start_forever(theirs, say)
        finally:
            os._exit(0)

    def __call__(self, name: str, _uid: int) -> socket.socket:
        """A connection to a new broker.

        :raises BrokerError: when nobody is there to start it
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            socket.send_fds(self._socket, [name.encode()], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise BrokerError(f"the process that starts it is gone: {error.strerror}") from error
        finally:
            theirs.close()
        return ours

    def owns(self, pid: int) -> bool:
        """Whether it is this one or a child of it, which are brokers."""
        from aegis.actions.processes import read_stat  # noqa: PLC0415 (the starter does without)

        try:
            return pid == self.pid or read_stat(pid).ppid == self.pid
        except OSError:
            return False

    def close(self) -> None:
        """It ends; brokers end once what they do is done."""
        self._socket.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _start_forever(requests: socket.socket, say: Say) -> None:
    # A terminal's Ctrl-C is for the agent, which closes our socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    every = frozenset().union(*BROKERS.values())
    with suppress(KernelError):
        keep_rights(every)
    while True:
        name, fds, _, _ = socket.recv_fds(requests, _NAME_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        if not name or len(fds) != 1:
            return
        if not os.fork():
            _be_broker(name.decode(), requests, fds[0], say)
        os.close(fds[0])


def _be_broker(name: str, requests: socket.socket, fd: int, say: Say) -> None:
    try:
        # Tens of modules, which the starter can do without.
        from aegis.broker.serve import serve_forked  # noqa: PLC0415

        requests.close()
        if name in BROKERS:
            serve_forked(name, socket.socket(fileno=fd), say)
    finally:
        os._exit(0)
