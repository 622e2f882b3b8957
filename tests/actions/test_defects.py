# SPDX-License-Identifier: Apache-2.0
"""A defect in one reaction to one event: the others are carried out, and it is loud."""

import asyncio
from pathlib import Path
from typing import Any, NoReturn

import pytest

from aegis.actions.defects import Defects
from aegis.actions.log import EventLog
from aegis.actions.notify import Notifier
from aegis.actions.react import Reactions
from aegis.actions.runs import Runs
from aegis.actions.script import ScriptRunner
from aegis.events.context import Context
from aegis.events.ecs import Record
from aegis.events.event import Hook, KillBy
from aegis.policy.model import Actions, Notify, Settings
from tests.actions.conftest import Write
from tests.actions.sending import Sending
from tests.actions.told import Told
from tests.actions.webhook import Webhook
from tests.events.factory import make_event

EVERYTHING = Actions(log=True, notify=True, kill=True)


def fail(*_: object) -> NoReturn:
    raise KeyError("destination")


async def fail_later(*_: object) -> NoReturn:
    fail()


class Scene:
    """Reactions with all there is; what was shown."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.shown: list[Record] = []
        self.reactions = Reactions(Context(), on_record=self.shown.append)
        self.reactions.log = EventLog(folder / "log", self.reactions.notice)
        told = (self.reactions.notice, Runs(), self.reactions.defects.happened)
        self.scripts = ScriptRunner(Settings(script_dirs=(str(folder),)), *told)
        self.notifier = Notifier(Notify(**settings), *told)
        self.reactions.scripts, self.reactions.notifier = self.scripts, self.notifier

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.shown if record["aegis"].get("notice") == kind]

    async def settled(self) -> None:
        await self.scripts.drain()
        await self.notifier.drain()
        await self.notifier.close()


def test_a_socket_that_is_refused_is_notified_of(
    sending: Sending, webhook: Webhook, script_dir: Path
) -> None:
    """It has no destination; anybody can make one."""
    sending.write(webhook.url)

    async def react() -> Scene:
        scene = Scene(script_dir, sending.settings)
        nowhere = {"destination": None, "destination_port": 0, "transport": "sctp"}
        scene.reactions.handle(
            make_event(hook=Hook.SOCKET, actions=Actions(log=True, notify=True), **nowhere)
        )
        await scene.settled()
        return scene

    scene = asyncio.run(react())
    [body] = webhook.received
    assert body["title"].endswith(": curl makes a socket of sctp")
    assert (scene.of("reaction-failed"), scene.reactions.defects.count) == ([], 0)


@pytest.mark.parametrize("broken", ["kill", "submit", "script"])
def test_what_one_reaction_fails_by_costs_no_other(
    sending: Sending,
    webhook: Webhook,
    write_script: Write,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    """Of the same event, nor of the next; it is counted each time, and told once."""
    sending.write(webhook.url)
    script_dir = write_script("hook", "#!/bin/sh\n").parent

    async def react() -> Scene:
        scene = Scene(script_dir, sending.settings)
        match broken:
            case "kill":
                monkeypatch.setattr(scene.reactions.killer, "kill", fail)
            case "submit":
                monkeypatch.setattr(scene.notifier, "submit", fail)
            case "script":
                monkeypatch.setattr(scene.scripts, "_run", fail_later)
        event = make_event(pid=1, kill=KillBy.AGENT, actions=EVERYTHING)
        for _ in range(2):
            scene.reactions.handle(event)
        await scene.settled()
        return scene

    scene = asyncio.run(react())
    defects = scene.reactions.defects
    assert defects.count == 2
    [notice] = scene.of("reaction-failed")
    assert "KeyError: 'destination' (test_defects.py:" in notice["message"]
    assert defects.wrong()[0].startswith("2 reactions failed by a defect of Aegis, such as KeyE")
    assert [record["aegis"].get("notice") for record in scene.shown].count(None) == 2
    assert len(scene.of("kill-skipped")) == (broken != "kill")
    assert len(webhook.received) == 2 * (broken != "submit")
    assert len(scene.of("script-finished")) == 2 * (broken != "script")


def test_a_defect_is_told_once_for_each_place_and_never_fails_itself() -> None:
    told, defects = Told(), Defects(fail)
    with defects.contained():
        fail()
    assert (defects.count, len(defects.wrong())) == (1, 1)
    defects = Defects(told)
    assert defects.wrong() == []
    for number in range(100):
        with defects.contained():
            raise ValueError(f"{number} " + "x" * 10_000)  # a program's own text, say
        with defects.contained():
            fail()
    assert told.kinds() == ["reaction-failed"] * 2
    assert max(len(message) for _, message, _ in told.notices) < 500
    assert defects.count == 200


def test_who_is_to_end_ends() -> None:
    """Only what is an error is contained."""
    with pytest.raises(asyncio.CancelledError), Defects(fail).contained():
        raise asyncio.CancelledError
