# SPDX-License-Identifier: Apache-2.0
"""Which actions an event leads to, on a real log, real scripts, real processes."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aegis.actions.cage import own_cgroup
from aegis.actions.log import EventLog
from aegis.actions.react import Reactions
from aegis.actions.runs import Runs
from aegis.actions.script import ScriptRunner
from aegis.events.context import Context
from aegis.events.ecs import Record
from aegis.events.event import Event, Hook, KillBy
from aegis.policy.model import Actions, Mode, Settings, Verdict
from tests.actions.conftest import Write
from tests.actions.living import event_of
from tests.events.factory import make_event
from tests.pace import HUNG_S

OBSERVED: dict[str, Any] = {"mode": Mode.OBSERVE, "verdict": Verdict.WOULD_BLOCK}
OLD: dict[str, Any] = {"hook": Hook.EXISTING}
UDP_CONNECT = {"hook": "connect", "transport": "udp"}


React = Callable[..., "Outcome"]


class Outcome:
    """What an event led to."""

    def __init__(self, event: Event, scripts: Path, log: Path) -> None:
        self.shown: list[Record] = []
        self.log = log
        asyncio.run(self._react(event, scripts))

    async def _react(self, event: Event, scripts: Path) -> None:
        reactions = Reactions(Context(), on_record=self.shown.append)
        reactions.log = EventLog(self.log, reactions.notice)
        settings = Settings(script_dirs=(str(scripts),))
        reactions.scripts = ScriptRunner(settings, reactions.notice, Runs(own_cgroup()))
        reactions.handle(event)
        await reactions.scripts.drain()
        reactions.flush()
        self.kills = {status.value: count for status, count in reactions.killer.outcomes.items()}

    def kinds(self) -> list[str]:
        return [record["aegis"].get("notice", "event") for record in self.shown]

    def logged(self) -> list[str]:
        if not self.log.exists():
            return []
        records = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [record["aegis"].get("notice", "event") for record in records]

    def ran(self) -> list[str]:
        finished = [r for r in self.shown if r["aegis"].get("notice") == "script-finished"]
        return [record["process"]["name"] for record in finished]


@pytest.fixture
def react(tmp_path: Path) -> React:
    def react(event: Event, scripts: Path = tmp_path / "none") -> Outcome:
        return Outcome(event, scripts, tmp_path / "log")

    return react


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def scripts(script_dir: Path, write_script: Write) -> Path:
    for name in ("isolate", "mail"):
        write_script(name, "#!/bin/sh\n")
    return script_dir


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        (Actions(block=True), ""),
        (Actions(log=True), "event"),
        (Actions(notify=True), "isolate mail"),
        (Actions(scripts=("mail",)), "mail"),
        (Actions(log=True, notify=True, scripts=("mail",)), "event isolate mail"),
    ],
)
@pytest.mark.parametrize("mode", [{}, OBSERVED], ids=["enforce", "observe"])
def test_log_and_scripts_act_as_written_in_both_modes(
    scripts: Path, react: React, actions: Actions, told: str, mode: dict[str, Any]
) -> None:
    outcome = react(make_event(actions=actions, **mode), scripts)
    ran = [word for word in told.split() if word != "event"]
    logged = ["event"] * ("event" in told) + ["script-finished"] * len(ran)
    assert sorted(outcome.ran()) == ran
    assert outcome.logged() == logged
    # The live view shows the event whatever the actions are.
    assert outcome.kinds() == ["event"] + ["script-finished"] * len(ran)


def test_kill_comes_first_and_its_result_is_always_logged(
    victim: subprocess.Popen[bytes], react: React
) -> None:
    event = event_of(victim.pid, kill=KillBy.AGENT, actions=Actions(kill=True))
    outcome = react(event)
    assert victim.wait(HUNG_S) == -9
    assert outcome.kinds() == ["event", "process-killed"]
    assert outcome.logged() == ["process-killed"]
    assert outcome.kills == {"killed": 1}
    first, notice = outcome.shown
    assert notice["process"]["pid"] == victim.pid
    assert notice["aegis"]["event_id"] == first["event"]["id"]
    assert notice["aegis"]["kill"] == {
        "status": "killed",
        "detail": "",
        "by": "agent",
        "descendants": 0,
    }


def test_a_kill_that_was_skipped_says_why(victim: subprocess.Popen[bytes], react: React) -> None:
    event = event_of(victim.pid, start_boot_ns=1, kill=KillBy.AGENT, actions=Actions(kill=True))
    outcome = react(event)
    assert victim.poll() is None
    assert outcome.logged() == ["kill-skipped"]
    assert outcome.kills == {"not-the-same-process": 1}
    assert "another process" in outcome.shown[1]["message"]


@pytest.mark.parametrize(
    ("kill", "actions"),
    [
        pytest.param(None, Actions(log=True, kill=True), id="the-kernel-did-not-ask"),
        pytest.param(KillBy.AGENT, Actions(log=True), id="the-policy-is-long-gone"),
    ],
)
def test_nobody_is_killed_of_whom_the_policy_and_the_kernel_do_not_both_say_so(
    victim: subprocess.Popen[bytes], react: React, kill: KillBy | None, actions: Actions
) -> None:
    outcome = react(event_of(victim.pid, kill=kill, actions=actions))
    assert victim.poll() is None
    assert outcome.kinds() == outcome.logged() == ["event"]


@pytest.mark.parametrize("spared", [OBSERVED, OLD], ids=["observe-mode", "older-than-the-agent"])
def test_who_would_be_killed_is_said(react: React, spared: dict[str, Any]) -> None:
    outcome = react(make_event(actions=Actions(log=True, kill=True), **spared))
    assert outcome.shown[0]["aegis"]["would_kill"] is True
    assert outcome.kinds() == ["event"]


def test_a_kill_the_kernel_did_is_told_as_done(
    victim: subprocess.Popen[bytes], react: React
) -> None:
    """The signal was sent before the call returned: nothing is left to do here."""
    outcome = react(event_of(victim.pid, kill=KillBy.HOOK, actions=Actions(kill=True)))
    assert victim.poll() is None  # not by us
    assert outcome.kills == {"killed": 1}
    assert outcome.shown[1]["aegis"]["kill"]["by"] == "hook"


def test_a_udp_connect_is_logged_but_runs_no_script(scripts: Path, react: React) -> None:
    actions = Actions(log=True, notify=True, scripts=("mail",))
    outcome = react(make_event(actions=actions, **UDP_CONNECT), scripts)
    assert outcome.kinds() == outcome.logged() == ["event"]


def test_without_log_and_scripts_the_live_view_still_works() -> None:
    shown: list[Record] = []
    reactions = Reactions(Context(), on_record=shown.append)
    reactions.handle(make_event(actions=Actions(log=True, notify=True)))
    reactions.notice("reload-failed", "policy unchanged", metric=False)
    reactions.flush()
    assert [record["aegis"].get("notice") for record in shown] == [None, "reload-failed"]


def test_a_process_that_is_spared_is_told_of_once_a_minute(
    victim: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """It may ask to be killed ten times a second, for hours; what it asked is counted."""
    shown: list[Record] = []
    reactions = Reactions(Context(), on_record=shown.append)
    reactions.killer.settings = Settings(kill_budget=0)
    event = event_of(victim.pid, kill=KillBy.AGENT, silent=True, actions=Actions(kill=True))
    for _ in range(100):
        reactions.handle(event)
    [notice] = shown
    assert notice["aegis"]["kill"]["status"] == "over-budget"
    assert reactions.killer.outcomes == {"over-budget": 100}
    reactions.killer.settings = Settings(kill_budget=1)
    reactions.handle(event)
    assert victim.wait(HUNG_S) == -9 and len(shown) == 2
