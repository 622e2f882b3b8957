# SPDX-License-Identifier: Apache-2.0
"""How an action says what became of it."""

from collections.abc import Callable, Mapping
from typing import Any

Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Called with a kind (``script-failed``), a sentence, and ECS fields to merge in."""


def tell_nobody(kind: str, message: str, fields: Mapping[str, Any]) -> None:
    """The ``Tell`` of who does not care."""
