# SPDX-License-Identifier: Apache-2.0
"""The file of the last good policy, written by a running agent."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from aegis.last_good import LastGood, this_boot, write
from aegis.policy.model import Address
from aegis.policy.tables import Tables

RETRY_S = 60.0

Notice = Callable[[str, str], object]


class Keeper:
    """Writes what was put in force for good, soon after and not before ``keep_forever`` runs.

    *path* None: nothing is kept. *names*: what names mean now. *tell* gets one
    notice when the file cannot be written, and one when it can be again.
    """

    def __init__(
        self, path: Path | None, names: Callable[[], Mapping[Address, str]], tell: Notice
    ) -> None:
        self.path = path
        self.error: str | None = None
        self._names = names
        self._tell = tell
        self._pending: tuple[Tables, int] | None = None
        self._due = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = threading.Lock()

    def offer(self, tables: Tables, generation: int) -> None:
        """*tables* are in force; from any thread."""
        if self.path is None:
            return
        self._pending = tables, generation
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._due.set)

    async def keep_forever(self) -> None:
        """Write what is offered; what fails is tried again."""
        self._loop = asyncio.get_running_loop()
        while True:
            if self._pending is not None:
                await asyncio.to_thread(self._write)
            self._due.clear()
            if self._pending is None or self.error is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if self.error is None else RETRY_S):
                        await self._due.wait()

    def close(self) -> None:
        """Write what is left; and the file's time is now, which is when it was last in force."""
        if self._loop is None or self.path is None:
            return  # the start failed: nothing of it is in force
        self._loop = None
        self._write()
        if self.error is None:
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _write(self) -> None:
        with self._writing:  # one that was cancelled may still be at it
            self._write_pending()

    def _write_pending(self) -> None:
        pending = self._pending
        if pending is None or self.path is None:
            return
        tables, generation = pending
        try:
            write(self.path, LastGood(tables, generation, this_boot(), self._by_name()))
        except OSError as error:
            failure = f"{self.path}: {error.strerror}"
            if self.error is None:
                message = f"the policy in force is not kept for the next boot: {failure}"
                self._say("last-good-not-kept", message)
            self.error = failure
            return
        if self.error is not None:
            self._say("last-good-kept", f"{self.path}: the policy in force is kept again")
        self.error = None
        if self._pending is pending:  # else there is a newer one
            self._pending = None

    def _say(self, kind: str, message: str) -> None:
        """On the loop: who is told writes the log there."""
        if self._loop is None:
            self._tell(kind, message)
        else:
            self._loop.call_soon_threadsafe(self._tell, kind, message)

    def _by_name(self) -> dict[str, frozenset[Address]]:
        found: dict[str, set[Address]] = {}
        for address, name in dict(self._names()).items():
            found.setdefault(name, set()).add(address)
        return {name: frozenset(held) for name, held in found.items()}
