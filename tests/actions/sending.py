# SPDX-License-Identifier: Apache-2.0
"""A file of notification targets, and events to tell them of."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aegis.actions.notify import Notifier
from aegis.events.ecs import to_ecs
from aegis.policy.model import Notify
from tests.actions.hooks import CONTEXT
from tests.actions.told import Told
from tests.events.factory import make_event

Submit = Callable[[Notifier], object]


class Sending:
    """A notifier, its file of URLs, and what it told."""

    def __init__(self, directory: Path) -> None:
        self.urls = directory / "notify.urls"
        self.settings: dict[str, Any] = {"urls_file": str(self.urls)}
        self.told = Told()
        self.outcomes: dict[str, int] = {}

    def write(self, *urls: str) -> None:
        self.urls.write_text("".join(f"{url}\n" for url in urls))
        self.urls.chmod(0o600)

    def run(self, submit: Submit, seconds: float = 0) -> None:
        """Let *submit* have a notifier, and close it when all is sent and *seconds* passed."""

        async def scenario() -> None:
            notifier = Notifier(Notify(**self.settings), self.told)
            submit(notifier)
            await asyncio.sleep(seconds)
            await notifier.drain()
            await notifier.close()
            self.outcomes = dict(notifier.outcomes)

        asyncio.run(scenario())
        assert "SECRET" not in str(self.told.notices)


def of(**changes: Any) -> Submit:
    event = make_event(**changes)
    return lambda notifier: notifier.submit(to_ecs(event, CONTEXT), event.start_boot_ns)
