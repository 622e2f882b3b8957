# SPDX-License-Identifier: Apache-2.0
"""What every test run says about itself."""

import os
import platform
from pathlib import Path

import pytest

from tests.folders import closed_to

NOBODY = 65534


@pytest.fixture(scope="session")
def seen_by_nobody() -> None:
    """The checkout, for who executes something of it without rights."""
    if os.geteuid() != 0:
        return
    closed = closed_to(NOBODY, Path(__file__).parents[1])
    if closed is not None:
        pytest.fail(
            f"this checkout is below {closed}, which uid {NOBODY} may not enter: senders of "
            "notifications and others run as that user; move it, or open that directory",
            pytrace=False,
        )


def pytest_report_header() -> str:
    """Kernel tests depend on the kernel and on who runs them: say both."""
    demanded = "required" if os.environ.get("AEGIS_KERNEL_TESTS") == "1" else "skipped if missing"
    where = "root cgroup" if os.environ.get("AEGIS_TEST_ROOT") == "1" else "scratch cgroups"
    return (
        f"kernel: {platform.release()}, uid {os.geteuid()}; "
        f"kernel tests: {demanded}, agent attached at {where}"
    )
