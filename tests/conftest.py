# SPDX-License-Identifier: Apache-2.0
"""What every test run says about itself."""

import os
import platform


def pytest_report_header() -> str:
    """Kernel tests depend on the kernel and on who runs them: say both."""
    demanded = "required" if os.environ.get("AEGIS_KERNEL_TESTS") == "1" else "skipped if missing"
    where = "root cgroup" if os.environ.get("AEGIS_TEST_ROOT") == "1" else "scratch cgroups"
    return (
        f"kernel: {platform.release()}, uid {os.geteuid()}; "
        f"kernel tests: {demanded}, agent attached at {where}"
    )
