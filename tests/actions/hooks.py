# SPDX-License-Identifier: Apache-2.0
"""A directory of hook scripts, and events to run them for."""

import asyncio
import time
from pathlib import Path
from typing import Any

from aegis.actions.runs import Runs
from aegis.actions.script import ScriptRunner
from aegis.actions.script_env import script_env
from aegis.events.context import Context
from aegis.events.ecs import to_ecs
from aegis.policy.model import Settings
from tests.actions.told import Told
from tests.events.factory import make_event

CONTEXT = Context()


class Hooks:
    """Runs every script of a directory for events, and remembers what was told."""

    def __init__(self, directory: Path, home: Path | None) -> None:
        self.home = home  # of their cgroups
        self.settings: dict[str, Any] = {"script_dirs": (str(directory),), "script_timeout": 20}
        self.told = Told()

    def runner(self) -> ScriptRunner:
        return ScriptRunner(Settings(**self.settings), self.told, Runs(self.home))

    def run(self, events: int = 1, names: tuple[str, ...] | None = None, **changes: Any) -> float:
        """Submit *events* events; return how many seconds later the last notice was told."""
        begun = 0.0

        async def scenario() -> None:
            nonlocal begun
            runner = self.runner()
            begun = time.monotonic()
            for _ in range(events):
                event = make_event(**changes)
                record = to_ecs(event, CONTEXT)
                runner.submit(record, script_env(event, record), names)
            await runner.drain()

        asyncio.run(scenario())
        return self.told.last - begun

    def notice(self, kind: str) -> tuple[str, dict[str, Any]]:
        """Return message and fields of the only notice, which is of *kind*."""
        assert self.told.kinds() == [kind], self.told.notices
        return self.told.notices[0][1:]

    def output(self) -> str:
        return str(self.notice("script-finished")[1]["aegis"]["output"])
