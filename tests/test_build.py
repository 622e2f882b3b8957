# SPDX-License-Identifier: Apache-2.0
"""The build: by PyPA's tools from a clean copy, and in one line when something is missing."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from build import EXTENSION, PACKAGES, ROOT, SEARCH_PATH

TOOLS = ("cc", "clang", "bpftool")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is under version control or about to be, nothing generated."""
    copy = tmp_path / "checkout"
    generated = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.so", "__pycache__", ".*"
    )
    shutil.copytree(ROOT, copy, ignore=generated)
    return copy


def test_python_m_build_makes_a_wheel_that_loads(checkout: Path, tmp_path: Path) -> None:
    """Our build.py shadows the tool of that name; it must still do its work."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*command, tmp_path], cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp311-abi3-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        assert f"aegis/{EXTENSION}" in archive.namelist()
        archive.extractall(tmp_path / "installed")
    code = "import aegis._bpf as b; print(b.__file__, b.ffi.sizeof('struct aegis_event'))"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [str(tmp_path / "installed/aegis" / EXTENSION), "1024"]


@pytest.mark.parametrize("missing", TOOLS)
def test_a_missing_tool_is_one_line_that_names_its_package(
    missing: str, checkout: Path, tmp_path: Path
) -> None:
    """Not a traceback, and not a compiler's guess."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in {*TOOLS, "python3"} - {missing}:
        found = shutil.which(name, path=SEARCH_PATH)
        assert found is not None
        (tools / name).symlink_to(found)
    script = checkout / "build.py"
    # bpftool is looked for in /usr/sbin as well: take that away too.
    script.write_text(script.read_text().replace('"/usr/sbin", "/sbin"', '"/nowhere"'))
    result = subprocess.run(
        [sys.executable, script],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"aegis: {missing} not found: install the package {PACKAGES[missing]}\n"
    )


def test_a_running_agent_keeps_the_extension_it_mapped() -> None:
    """A build beside a running agent replaces the file, and does not write into it."""
    target = ROOT / "aegis" / EXTENSION
    before = target.stat().st_ino
    subprocess.run([sys.executable, ROOT / "build.py"], check=True, capture_output=True)
    assert target.stat().st_ino != before
