# SPDX-License-Identifier: Apache-2.0
"""A broker that really serves, in a process of its own, and the agent's end of it."""

import os
import socket
from dataclasses import dataclass, field

from aegis import names
from aegis.broker.serve import serve_forked


@dataclass
class Served:
    """An opener, as the agent's: forks a broker for each connection. *pids*: of all."""

    pids: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __call__(self, name: str, _uid: int = 0) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            try:
                ours.close()
                # Whoever starts brokers has no threads; ours are not there any more in the child.
                names._POOL = names._Pool()
                serve_forked(name, theirs, self.said.append)
            finally:
                os._exit(0)
        theirs.close()
        self.pids.append(pid)
        return ours

    def owns(self, pid: int, /) -> bool:
        return pid in self.pids

    def end(self, pid: int | None = None) -> None:
        """Kill *pid*, or the last one, and wait for its end."""
        number = self.pids[-1] if pid is None else pid
        self.pids.remove(number)
        os.kill(number, 9)
        os.waitpid(number, 0)

    def close(self) -> None:
        while self.pids:
            self.end()
