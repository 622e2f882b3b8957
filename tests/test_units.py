# SPDX-License-Identifier: Apache-2.0
"""What systemd says of the units' sandbox."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).resolve().parents[1] / "debian"
# The loader holds three capabilities, before there is a network. The agent runs as root and starts
# hook scripts, which are in its sandbox: what it holds itself is tests/kernel/test_privileges.py's.
HIGHEST = {"aegis.aegis-load.service": 2.0, "aegis.service": 4.5}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("name", HIGHEST)
def test_the_exposure_is_as_low_as_promised(name: str, tmp_path: Path) -> None:
    """By systemd's own measure: 10 is everything, 2.0 the aim."""
    unit = tmp_path / f"aegis{name.removeprefix('aegis').removeprefix('.aegis')}"
    unit.write_text((DEBIAN / name).read_text())
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= HIGHEST[name]
