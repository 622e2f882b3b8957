# SPDX-License-Identifier: Apache-2.0
"""Under systemd: each broker is a unit with a socket, started by who connects to it."""

import os
import socket
from pathlib import Path

from aegis.errors import BrokerError
from aegis.privileges import BROKERS, HOOKS
from aegis.spawn import Program, spawn

SOCKETS = Path("/run/aegis/brokers")
_SYSTEMCTL = "/usr/bin/systemctl"
_START_S = 5.0
_PLACES = frozenset(f"/system.slice/aegis-{name}.service" for name in BROKERS if name != HOOKS)


class Units:
    """*folder*: where their sockets are."""

    def __init__(self, folder: Path = SOCKETS, proc: Path = Path("/proc")) -> None:
        self._folder = folder
        self._proc = proc

    def __call__(self, name: str, uid: int) -> socket.socket:
        """A connection to it; hooks have a unit for each user.

        :raises BrokerError: when nobody listens there
        """
        label = f"{name}@{uid}" if name == HOOKS else name
        path = self._folder / label
        if name == HOOKS and not path.exists():
            _start(f"aegis-{label}.socket")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise BrokerError(f"{path}: {error.strerror}") from error
        return connection

    def owns(self, pid: int) -> bool:
        """Whether it is in the cgroup of one, where only PID 1 puts anybody.

        Not of hooks, which connect to nothing: there are scripts, too.
        """
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return False
        return any(line.removeprefix("0::") in _PLACES for line in lines)

    def close(self) -> None:
        """They are systemd's."""


def _start(unit: str) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        program = Program(_SYSTEMCTL, ("systemctl", "start", unit), {}, null, null)
        spawn(program).wait(_START_S)
    except OSError:
        return  # it is told when nobody listens
    finally:
        os.close(null)
