# SPDX-License-Identifier: Apache-2.0
"""The matrix: a row must not stand for a kernel it does not mean."""

import pytest

from vmtests.kernels import KERNELS


@pytest.mark.parametrize(
    ("release", "name"),
    [
        pytest.param("6.1.0-50-amd64", "6.1", id="bookworm"),
        pytest.param("6.12.117+deb13-amd64", "6.12", id="trixie"),
        pytest.param("6.16.3+deb13-amd64", "newest", id="backports"),
        pytest.param("7.3.4+deb13-amd64", "newest", id="next-major"),
        pytest.param("6.10.1", None, id="between-rows"),
        pytest.param("5.10.0-30-amd64", None, id="below-the-floor"),
    ],
)
def test_a_release_is_covered_by_one_row_at_most(release: str, name: str | None) -> None:
    """Numbers are compared as numbers: 6.10 is not 6.1."""
    rows = [kernel.name for kernel in KERNELS if kernel.covers(release)]
    assert rows == ([] if name is None else [name])
