# SPDX-License-Identifier: Apache-2.0
"""Making a hundred thousand small values without the cycle collector in between."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the collector off while the block lasts.

    A policy is made of values that form no cycles; looking for some among all
    that are there so far, again and again, takes a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
