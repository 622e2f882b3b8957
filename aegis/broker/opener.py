# SPDX-License-Identifier: Apache-2.0
"""How one comes to a broker."""

import socket
from typing import Protocol


class Opener(Protocol):
    """``Starter`` or ``Units``."""

    def __call__(self, name: str, uid: int, /) -> socket.socket:
        """Return a connection to the broker of that name, for the user of that uid."""
        ...

    def owns(self, pid: int, /) -> bool:
        """Whether it is one of those processes; nothing a process says of itself counts."""
        ...

    def close(self) -> None: ...
