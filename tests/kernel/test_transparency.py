# SPDX-License-Identifier: Apache-2.0
"""Nothing else breaks: the short run of ``tests.transparency``."""

from collections.abc import Callable

import pytest

from tests.kernel import settings
from tests.transparency.__main__ import missing
from tests.transparency.compare import BARE, POLICIES, Comparison, compare
from tests.transparency.cpython import CPython
from tests.transparency.stress import StressNg
from tests.transparency.suite import Side, Suite, differing, unsteady

Make = Callable[[], Suite]


@pytest.fixture(scope="module")
def results(host: None) -> list[Comparison]:
    packages = missing()
    if packages and not settings.REQUIRED:
        pytest.skip(f"needs {', '.join(packages)}")
    assert packages == []
    return compare(
        [CPython(["test_socketserver", "test_urllib2_localnet"]), StressNg(["sock", "udp"], 1)],
        say=print,
    )


def test_programs_do_not_notice_aegis(results: list[Comparison]) -> None:
    """Enforcing what allows everything, observing what would refuse everything."""
    for result in results:
        assert result.differences == []
        assert [side.title for side in result.sides] == [BARE, *POLICIES]
        assert all(sum(side.counts.values()) for side in result.sides)


def test_aegis_was_there(results: list[Comparison]) -> None:
    """Else nothing was shown: the kernel gave verdicts on what ran."""
    stress = next(result for result in results if isinstance(result.suite, StressNg))
    assert stress.was_seen
    assert min(stress.decided.values()) > 100


def test_what_ran_was_real(results: list[Comparison]) -> None:
    """Most of it passes, and is not just skipped alike."""
    for result in results:
        for side in result.sides:
            assert side.counts["passed"] > sum(side.counts.values()) / 2


def side(title: str, **outcomes: str) -> Side:
    made = Side(title)
    made.add({"part": outcomes})
    return made


def test_a_difference_is_seen_and_an_unsteady_test_is_none() -> None:
    """What fails with Aegis only, each time, is a difference; what wavers is named."""
    bare, other = side("bare", a="passed", b="passed", c="failure"), side("other", a="failure")
    other.add({"part": {"b": "failure", "c": "failure"}})
    assert list(differing(bare, other)) == [("part", "a"), ("part", "b")]
    bare.add({"part": {"b": "failure"}})
    assert list(differing(bare, other)) == [("part", "a")]
    assert list(unsteady(bare, other)) == [("part", "a"), ("part", "b")]
    assert list(differing(bare, side("gone", a="passed", b="passed"))) == [("part", "c")]
