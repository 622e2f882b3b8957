# SPDX-License-Identifier: Apache-2.0
"""What must hold for a long time and under faults: ``./dev soak NAME``."""

import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from tests.soak.scene import Result

SOAKS = (
    *("kill", "pause", "upgrade", "reload", "unload"),
    *("lockout", "evidence", "privileges", "faults", "limits"),
)


class Soak(Protocol):
    """A module of this package."""

    LONG: int
    SHORT: int

    def run(self, count: int, seed: int) -> "Result":
        """How it went; an ``AssertionError`` when something did not hold."""


def find(name: str) -> Soak:
    return cast(Soak, importlib.import_module(f"tests.soak.{name}"))
