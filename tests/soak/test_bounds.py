# SPDX-License-Identifier: Apache-2.0
"""A soak that misses what is promised fails, and says what it missed."""

import pytest

from tests.soak.kill import DENIED_A_SECOND, READY_S, missed


@pytest.mark.parametrize(
    ("ready", "denied", "said"),
    [
        (READY_S, DENIED_A_SECOND, []),
        (0.31, 5000, ["ready 0.310 s at the median, not 0.3", "load "]),
        (0.2, 1999, ["1,999 denied a second, not 2,000", "load "]),
        (0.4, 10, ["ready 0.400 s", "10 denied a second"]),
    ],
)
def test_each_bound_of_the_kills_can_be_missed(
    ready: float, denied: float, said: list[str]
) -> None:
    """Both are promised of a quiet machine; the line has its load."""
    line = missed(ready, denied)
    assert bool(line) is bool(said)
    for words in said:
        assert words in line
