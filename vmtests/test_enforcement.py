# SPDX-License-Identifier: Apache-2.0
"""The enforcement tests of tests/kernel, at the root cgroup of each kernel in the matrix."""

import shutil

import pytest

from vmtests import vm
from vmtests.conftest import REPORT
from vmtests.kernels import KERNELS, Kernel


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_enforcement_holds_on(kernel: Kernel, runs: list[vm.Run]) -> None:
    """Every test that passes here passes there, and the kernel is the one meant."""
    report = REPORT / kernel.name
    shutil.rmtree(report, ignore_errors=True)
    run = vm.run_pytest(kernel, report, "tests/kernel")
    runs.append(run)
    print(run.output)
    assert kernel.covers(run.release)
    assert run.exit_code == 0, run.summary
    assert run.passed > 0
