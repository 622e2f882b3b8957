# SPDX-License-Identifier: Apache-2.0
"""Making a hundred thousand small values without the cycle collector in between."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the collector off while the block lasts.

    A policy is made of values that form no cycles; looking for some among all
    that are there so far, again and again, takes a third of the time. So that
    the first look afterwards does not go through them either, what is there at
    the end is put aside until the next such block.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.unfreeze()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
