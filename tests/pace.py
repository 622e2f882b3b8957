# SPDX-License-Identifier: Apache-2.0
"""How long is waited for what makes no claim to be quick; and how what makes one is measured."""

from collections.abc import Callable

# Before something is called hung. Nobody waits in vain for what goes as it should.
HUNG_S = 120.0


def quickest(measure: Callable[[], float], bound: float, tries: int = 2) -> float:
    """What *measure* took; the least of *tries* if it was not below *bound* at once.

    Somebody else may have had the processor meanwhile: what is slow by itself is so each time.
    """
    least = measure()
    for _ in range(tries - 1):
        if least < bound:
            break
        least = min(least, measure())
    return least
