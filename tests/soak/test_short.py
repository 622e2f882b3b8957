# SPDX-License-Identifier: Apache-2.0
"""The short form of each soak; ``./dev soak NAME`` is the long one."""

import os

import pytest

from tests.kernel import settings
from tests.kernel.conftest import what_is_missing
from tests.soak import SOAKS, find


@pytest.mark.parametrize("name", SOAKS)
def test_soak(name: str) -> None:
    """What is promised holds for a few seconds at least."""
    missing = what_is_missing()
    if missing is not None:
        assert not settings.REQUIRED, f"AEGIS_KERNEL_TESTS=1, but {missing}"
        pytest.skip(missing)
    soak = find(name)
    result = soak.run(soak.SHORT, int(os.environ.get("AEGIS_SOAK_SEED", "1")))
    print(result.line)
    assert result.ok, result.line
