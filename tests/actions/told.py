# SPDX-License-Identifier: Apache-2.0
"""Remembers notices, as the agent would log them."""

import time
from collections.abc import Mapping
from typing import Any


class Told:
    """A ``Tell``. *last*: when it was last called, on the monotonic clock."""

    def __init__(self) -> None:
        self.last = 0.0
        self.notices: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, kind: str, message: str, fields: Mapping[str, Any]) -> None:
        self.last = time.monotonic()
        self.notices.append((kind, message, dict(fields)))

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.notices]
