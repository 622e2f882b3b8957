# SPDX-License-Identifier: Apache-2.0
"""How one comes to a broker."""

import socket
from typing import Protocol


class Opener(Protocol):
    """``Starter`` or ``Units``."""

    def __call__(self, name: str, uid: int, /) -> socket.socket: ...

    def close(self) -> None: ...
