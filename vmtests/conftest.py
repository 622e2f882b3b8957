# SPDX-License-Identifier: Apache-2.0
"""What the guests did is kept as JSON and told at the end of the run."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from vmtests.fetch import STATE
from vmtests.vm import Run, missing

REPORT = STATE / "report"
_runs = pytest.StashKey[list[Run]]()


@pytest.fixture(scope="session", autouse=True)
def host() -> None:
    """Skip where no guest can run; fail where one must."""
    lacking = missing()
    if lacking is None:
        return
    if os.environ.get("AEGIS_KERNEL_TESTS") == "1":
        pytest.fail(f"AEGIS_KERNEL_TESTS=1, but {lacking}")
    pytest.skip(lacking)


@pytest.fixture
def runs(request: pytest.FixtureRequest) -> list[Run]:
    """The list a finished guest is put on, to be reported."""
    return request.config.stash.setdefault(_runs, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """A line for each kernel, and the same as JSON."""
    told = config.stash.get(_runs, [])
    if not told:
        return
    path: Path = REPORT / "report.json"
    rows = [
        {**dataclasses.asdict(run), "output": str(REPORT / run.kernel / "output")} for run in told
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n")
    terminalreporter.section("kernels")
    for run in told:
        terminalreporter.write_line(
            f"{run.kernel:8} {run.release:24} {run.summary} "
            f"(booted in {run.boot_seconds:.0f} s, {run.total_seconds:.0f} s in all)"
        )
    terminalreporter.write_line(f"{path}:")
    terminalreporter.write_line(path.read_text())
