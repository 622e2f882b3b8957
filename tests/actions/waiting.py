# SPDX-License-Identifier: Apache-2.0
"""Waiting for real processes without waiting for ever."""

import time
from collections.abc import Callable

from tests.pace import HUNG_S


def wait_until(condition: Callable[[], bool], seconds: float = HUNG_S) -> None:
    """Return once *condition* holds; fail after *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)
