# SPDX-License-Identifier: Apache-2.0
"""A late kill hits its offender or nobody, while numbers are given out again and again.

``python -m tests.kill_safety 10000`` is the same at length.
"""

import os

import pytest

from tests import kill_safety


@pytest.mark.usefixtures("seen_by_nobody")
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a namespace")
def test_no_innocent_dies_and_every_living_offender_does() -> None:
    report = kill_safety.run(kills=400, delay=1.0, living=60)
    assert report["innocents_dead"] == 0
    assert report["killed"] == 200
    assert report["recycled"] > 0  # else nobody was in danger
    assert report["recycled"] + report.get("ended-gone", 0) == 200
