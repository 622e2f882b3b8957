# SPDX-License-Identifier: Apache-2.0
"""A flood of events whose scripts cannot be run is not a flood of notices."""

import asyncio
from pathlib import Path

import pytest

from aegis.actions import script as script_module
from aegis.actions.refusals import REASONS_MAX, Refusals
from aegis.actions.script import ScriptRunner
from aegis.actions.script_env import script_env
from aegis.events.ecs import to_ecs
from aegis.policy.model import Settings
from tests.actions.conftest import Write
from tests.actions.hooks import CONTEXT, Hooks
from tests.actions.told import Told
from tests.events.factory import make_event


def submit(runner: ScriptRunner, names: tuple[str, ...] | None, times: int) -> None:
    event = make_event()
    record = to_ecs(event, CONTEXT)
    for _ in range(times):
        runner.submit(record, script_env(event, record), names)


@pytest.mark.parametrize("names", [("gone",), None], ids=["missing-script", "no-directory"])
def test_a_flood_of_refusals_is_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] | None
) -> None:
    """One with the reason, one with how many more; and again in the next window."""
    monkeypatch.setattr(script_module, "DIGEST_S", 0.2)
    told, loop_of_links = Told(), tmp_path / "loop"
    loop_of_links.symlink_to(loop_of_links)

    async def scenario() -> ScriptRunner:
        runner = ScriptRunner(Settings(script_dirs=(str(loop_of_links),)), told)
        submit(runner, names, 1000)
        await asyncio.sleep(0.4)
        submit(runner, names, 10)
        await runner.close()
        return runner

    runner = asyncio.run(scenario())
    assert told.kinds() == ["script-refused", "scripts-refused"] * 2
    reason = told.notices[0][1].removeprefix("script not run: ")
    assert told.notices[1][1] == f"999 more scripts not run within 0.2 s: 999: {reason}"
    assert told.notices[1][2]["aegis"] == {"refused": 999}
    assert told.notices[3][2]["aegis"] == {"refused": 9}
    assert runner.counts()["script-refused"] == 1010


def test_many_reasons_are_as_few_lines() -> None:
    told = Told()

    async def scenario() -> None:
        refusals = Refusals(told, 60)
        for number in range(1000):
            refusals.happened(f"reason {number}", "id")
        refusals.end()
        refusals.end()

    asyncio.run(scenario())
    assert told.kinds() == ["script-refused"] * REASONS_MAX + ["scripts-refused"]
    assert "984: other reasons" in told.notices[-1][1]


def test_what_is_refused_once_is_told_once() -> None:
    told = Told()

    async def scenario() -> None:
        refusals = Refusals(told, 0.01)
        refusals.happened("reason", "id")
        await asyncio.sleep(0.05)

    asyncio.run(scenario())
    assert told.kinds() == ["script-refused"]


@pytest.mark.parametrize("names", [("hook",), None])
def test_a_full_queue_looks_at_no_directory(
    hooks: Hooks,
    write_script: Write,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...] | None,
) -> None:
    """What it drops is counted all the same."""
    write_script("hook", "#!/bin/sh\n")
    write_script("hook2", "#!/bin/sh\n")
    hooks.settings |= {"script_jobs": 1, "script_queue": 2}
    looks = []
    look = ScriptRunner._paths

    def counted(self: ScriptRunner, *of: object) -> object:
        looks.append(of)
        return look(self, *of)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptRunner, "_paths", counted)
    hooks.run(events=100, names=names)
    [dropped] = [n[2]["aegis"]["dropped"] for n in hooks.told.notices if n[0] == "scripts-dropped"]
    ran = hooks.told.kinds().count("script-finished")
    assert dropped + ran == 100 * (2 if names is None else 1)
    assert len(looks) < 10
