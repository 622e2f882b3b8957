# SPDX-License-Identifier: Apache-2.0
"""What is said of a kernel whose list of security modules can be read."""

from pathlib import Path

import pytest

from aegis.bpf.tiers import lacking_lsm


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        pytest.param("lockdown,capability,yama,apparmor,bpf", "", id="active"),
        pytest.param("lockdown,capability,bpf\n", "", id="with-a-newline"),
        pytest.param(
            "lockdown,capability,apparmor", "bpf is not in {path}: lockdown,capability,apparmor",
            id="not-active",
        ),
        pytest.param("lockdown,bpflock", "bpf is not in {path}: lockdown,bpflock", id="another"),
    ],
)  # fmt: skip
def test_a_kernel_without_the_bpf_lsm_is_told_from_its_list(
    tmp_path: Path, listed: str, reason: str
) -> None:
    path = tmp_path / "lsm"
    path.write_text(listed)
    assert lacking_lsm(path) == reason.format(path=path)


def test_without_a_list_trying_tells(tmp_path: Path) -> None:
    """securityfs is not mounted everywhere."""
    assert lacking_lsm(tmp_path / "lsm") == ""
