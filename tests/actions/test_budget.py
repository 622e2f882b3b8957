# SPDX-License-Identifier: Apache-2.0
"""Never more often than was said, wherever one begins to count."""

import random

import pytest

from aegis.actions.budget import Budget


def test_no_interval_holds_more_than_the_limit() -> None:
    """A bucket that refills would allow twice as many around its refill."""
    now = 0.0
    budget = Budget(5, 60, clock=lambda: now)
    used = []
    random_ = random.Random(1)  # noqa: S311
    for _ in range(5000):
        now += random_.choice([0, 0.1, 3, 30])
        if budget.left():
            budget.use()
            used.append(now)
    assert len(used) > 500
    assert all(later - earlier >= 60 for earlier, later in zip(used, used[5:], strict=False))


@pytest.mark.parametrize("limit", [0, 1])
def test_what_is_used_up_comes_back(limit: int) -> None:
    now = 0.0
    budget = Budget(limit, 60, clock=lambda: now)
    for _ in range(2):
        assert budget.left() is (limit == 1)
        budget.use()
        assert not budget.left()
        now += 60


def test_what_happens_unasked_is_forgotten_too() -> None:
    """The kernel's kills, say: they use the budget up, and nobody asks whether they may."""
    now = 0.0
    budget = Budget(1, 60, clock=lambda: now)
    for _ in range(1000):
        budget.use()
        now += 1
    assert len(budget._used) <= 61
