# SPDX-License-Identifier: Apache-2.0
"""What is said of traffic follows from what is attached."""

import pytest

from aegis.bpf.coverage import TRAFFIC, Level, Traffic

BOTH = Traffic("udp", "UDP", enforced_by=("connect", "sendmsg"), seen_by=("sendmsg",))


@pytest.mark.parametrize(
    ("attached", "level"),
    [
        pytest.param(["connect", "sendmsg", "other"], Level.ENFORCED, id="all"),
        pytest.param(["sendmsg"], Level.SEEN, id="what-tells-only"),
        pytest.param(["connect"], Level.NOT_SEEN, id="half-of-what-decides"),
        pytest.param([], Level.NOT_SEEN, id="nothing"),
    ],
)
def test_all_that_decides_must_be_attached(attached: list[str], level: Level) -> None:
    """With one of several hooks missing there is a way around."""
    assert BOTH.level(attached) is level


def test_what_no_program_is_about_is_never_seen() -> None:
    """An empty list of programs is not "all of them are there"."""
    assert Traffic("vsock", "vsock").level(["connect"]) is Level.NOT_SEEN


def test_each_traffic_has_a_name_of_its_own() -> None:
    assert len({traffic.name for traffic in TRAFFIC}) == len(TRAFFIC)
