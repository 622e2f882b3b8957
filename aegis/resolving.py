# SPDX-License-Identifier: Apache-2.0
"""Names in rules over time: resolved, refreshed, kept with a linger."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aegis.names import Answer, NameBook, names_in, read_hosts, read_resolvers, resolve
from aegis.policy.model import Address, Policy, Resolution, Where
from aegis.tasks import until_tick

START_S = 3.0  # at start and reload: then go on without; an unresolved name allows nothing
LOOKUP_S = 10.0
REFRESH_S = 60.0
RETRY_S = 5.0  # while some name has no address

Tell = Callable[[str, str, Mapping[str, Any]], None]
LookUp = Callable[[str, float], Awaitable[Answer]]


def now() -> float:
    """Seconds of the boot clock: a set wall clock must not age addresses."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Resolving:
    """The names of the policy in force; *tell* gets a notice of what went wrong."""

    def __init__(self, tell: Tell, look_up: LookUp = resolve) -> None:
        self._tell = tell
        self._look_up = look_up
        self._book = NameBook()
        self._names: Mapping[str, tuple[Where, ...]] = {}
        self._accepted: Mapping[str, tuple[Where, ...]] = {}  # of the policy in force
        self._told: set[str] = set()
        self._resolution = Resolution()
        self._changed = asyncio.Event()

    def recall(self, names: Mapping[str, frozenset[Address]], age: float) -> None:
        """What names meant *age* seconds ago, before this agent: kept as if it had seen it."""
        for name, addresses in names.items():
            self._book.update(name, addresses, now() - age)
        self._book.expire(now())
        self._resolution = self._book.resolution()

    async def start(self, policy: Policy) -> Resolution:
        """Return what the names of *policy* mean; addresses known before are kept."""
        self._names = names_in(policy)
        self._told &= set(self._names)
        self._read_files()
        await self._look_up_all(START_S)
        self._resolution = self._book.resolution()
        return self._resolution

    def accept(self) -> None:
        """The policy last given to ``start`` is in force: forget other names."""
        self._accepted = self._names
        self._book.keep_only(self._names)
        self._changed.set()

    def reject(self) -> None:
        """The policy last given to ``start`` is not in force after all: its names go."""
        self._names = self._accepted
        self._book.keep_only(self._names)
        self._resolution = self._book.resolution()

    @property
    def resolution(self) -> Resolution:
        """What names mean, as last looked up."""
        return self._resolution

    def labels(self) -> dict[Address, str]:
        """Address to the name whose rule allowed it."""
        return {address: name for name, held in self._resolution.names.items() for address in held}

    async def refresh_forever(self, changed: Callable[[Resolution], Awaitable[None]]) -> None:
        """Look names up again and again; await *changed* when they mean something new."""
        while True:
            await self._pause()
            self._read_files()
            await self._look_up_all(LOOKUP_S)
            self._book.expire(now())
            fresh = self._book.resolution()
            if fresh != self._resolution:
                self._resolution = fresh
                await changed(fresh)

    async def _pause(self) -> None:
        """Until the next look-up; without names, until a policy brings some."""
        self._changed.clear()
        unresolved = any(not self._resolution.names.get(name) for name in self._names)
        seconds = RETRY_S if unresolved else REFRESH_S
        try:
            async with asyncio.timeout(until_tick(seconds)):
                await self._changed.wait()
        except TimeoutError:
            return

    def _read_files(self) -> None:
        self._book.hosts = read_hosts()
        self._book.resolvers = read_resolvers()

    async def _look_up_all(self, timeout: float) -> None:
        names = list(self._names)
        answers = await asyncio.gather(*(self._look_up(name, timeout) for name in names))
        for name, answer in zip(names, answers, strict=True):
            refused = self._book.update(name, answer.addresses, now())
            for text in refused:
                self._tell_once(text, "name-refused", text, name)
            if answer.error:
                text = f"{name} does not resolve: {answer.error}"
                self._tell_once(name, "name-unresolved", text, name)
            else:
                self._told.discard(name)

    def _tell_once(self, key: str, kind: str, text: str, name: str) -> None:
        if key in self._told:
            return
        self._told.add(key)
        places = ", ".join(str(where) for where in self._names.get(name, ()))
        self._tell(kind, f"{places}: {text}", {"rule": {"name": places}})
