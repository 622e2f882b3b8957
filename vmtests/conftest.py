# SPDX-License-Identifier: Apache-2.0
"""The guests, and what they did: kept as JSON and told at the end of the run."""

import dataclasses
import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernel.workshop import Workshop, make_directory
from vmtests import boot, vm
from vmtests.kernels import NOT_IN_GUESTS, Kernel

REPORT = boot.REPORTS
Guests = dict[Kernel, "Future[vm.Run]"]
Boots = list[tuple[boot.Boot, list[str]]]

_told = pytest.StashKey[list[vm.Run]]()
_started = pytest.StashKey[Guests]()
_boots = pytest.StashKey["Future[Boots]"]()
_pool = pytest.StashKey[ThreadPoolExecutor]()


@pytest.fixture(scope="session", autouse=True)
def host() -> None:
    """Skip where no guest can run; fail where one must."""
    lacking = vm.missing()
    if lacking is None:
        return
    if os.environ.get("AEGIS_KERNEL_TESTS") == "1":
        pytest.fail(f"AEGIS_KERNEL_TESTS=1, but {lacking}")
    pytest.skip(lacking)


def _run(kernel: Kernel) -> vm.Run:
    report = REPORT / kernel.name
    shutil.rmtree(report, ignore_errors=True)
    names = (*NOT_IN_GUESTS, *kernel.without)
    ignored = [f"--ignore=tests/kernel/{name}.py" for name in names]
    return vm.run_pytest(kernel, report, "tests/kernel", "--durations=10", *ignored)


def _boot() -> Boots:
    return list(boot.boots(REPORT / "boot-short", boot.SHORT, nap=True))


def _has_less_to_do(kernel: Kernel) -> tuple[int, int]:
    return len(kernel.without), -kernel.processors


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start a guest for each kernel asked for, one a processor: that is what emulation keeps busy.

    At once, beside the tests of this machine, which mostly wait; and behind them, as guests
    only take what nobody else does. The one with most to do is not left for the end.
    """
    callspecs = (getattr(item, "callspec", None) for item in session.items)
    params = [callspec.params for callspec in callspecs if callspec is not None]
    kernels = [found["kernel"] for found in params if isinstance(found.get("kernel"), Kernel)]
    boots = any("boots" in getattr(item, "fixturenames", ()) for item in session.items)
    if session.config.option.collectonly or not (kernels or boots) or vm.missing() is not None:
        return
    Workshop(make_directory()).close()  # compiles what would take minutes in there
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    session.config.stash[_started] = {
        kernel: pool.submit(_run, kernel) for kernel in sorted(kernels, key=_has_less_to_do)
    }
    if boots:
        session.config.stash[_boots] = pool.submit(_boot)
    session.config.stash[_pool] = pool


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nobody waits any more, whatever the reason."""
    pool = config.stash.get(_pool, None)
    if pool is not None:
        pool.shutdown(wait=False, cancel_futures=True)
        vm.stop_all()


@pytest.fixture(scope="session")
def guests(request: pytest.FixtureRequest, host: None) -> Guests:
    """The guests that were started, by their kernels."""
    return request.config.stash[_started]


@pytest.fixture(scope="session")
def boots(request: pytest.FixtureRequest, host: None) -> Boots:
    """Of a whole Debian, once they are over."""
    return request.config.stash[_boots].result()


@pytest.fixture
def told(request: pytest.FixtureRequest) -> list[vm.Run]:
    """Put a run on this list to have it in the report."""
    return request.config.stash.setdefault(_told, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """A line for each kernel, and the same as JSON."""
    runs = config.stash.get(_told, [])
    if not runs:
        return
    path = REPORT / "report.json"
    rows = [_row(run, REPORT / run.kernel / "output") for run in runs]
    path.write_text(json.dumps(rows, indent=2) + "\n")
    terminalreporter.section("kernels")
    for run in runs:
        terminalreporter.write_line(
            f"{run.kernel:8} {run.release:24} {run.summary} "
            f"(booted in {run.boot_seconds:.0f} s, {run.total_seconds:.0f} s in all)"
        )
    terminalreporter.write_line(f"{path}:")
    terminalreporter.write_line(path.read_text())


def _row(run: vm.Run, output: Path) -> dict[str, object]:
    return {**dataclasses.asdict(run), "output": str(output)}
