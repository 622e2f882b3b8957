# SPDX-License-Identifier: Apache-2.0
"""The enforcement tests of tests/kernel, at the root cgroup of each kernel in the matrix."""

import pytest

from vmtests import vm
from vmtests.conftest import Guests
from vmtests.kernels import KERNELS, Kernel


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_enforcement_holds_on(kernel: Kernel, guests: Guests, told: list[vm.Run]) -> None:
    """Every test that passes here passes there, and the kernel is the one meant."""
    run = guests[kernel].result()
    told.append(run)
    print(run.output)
    assert run.release, "the guest did not get as far as its first command"
    assert kernel.covers(run.release)
    assert run.exit_code == 0, run.summary
    assert run.passed > 0
    assert run.skipped == 0
