# SPDX-License-Identifier: Apache-2.0
"""Under systemd: each broker is a unit with a socket, started by who connects to it."""

import os
import socket
from pathlib import Path

from aegis.errors import BrokerError
from aegis.privileges import HOOKS
from aegis.spawn import Program, spawn

SOCKETS = Path("/run/aegis/brokers")
_SYSTEMCTL = "/usr/bin/systemctl"
_START_S = 5.0


class Units:
    """*folder*: where their sockets are."""

    def __init__(self, folder: Path = SOCKETS) -> None:
        self._folder = folder

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
