# SPDX-License-Identifier: Apache-2.0
"""Intent on its way down: a policy put in force, again and again."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from aegis import systemd
from aegis.bpf.tiers import LSM
from aegis.config.load import Loaded, load_policy
from aegis.errors import AegisError
from aegis.parts import Parts
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy, Resolution
from aegis.resolving import Resolving
from aegis.tasks import Tasks


class Reloading:
    """The policy in force. *changed* is called after a reload, whatever came of it.

    Who holds ``lock`` has the kernel's tables to himself.
    """

    def __init__(self, parts: Parts, tasks: Tasks, changed: Callable[[], None]) -> None:
        self._parts = parts
        self._tasks = tasks
        self._changed = changed
        self._resolving = Resolving(self._tell_name)
        self.lock = asyncio.Lock()
        self.policy = Policy()
        self.in_force_since = time.monotonic()
        self.last_ok = True

    async def put_in_force(self, policy: Policy) -> int:
        """Compile and flip; an error changes nothing."""
        parts, mode = self._parts, self._parts.options.mode
        if mode is not None:
            policy = replace(policy, settings=replace(policy.settings, mode=mode))
        resolution = await self._resolving.start(policy)
        generation = await asyncio.to_thread(self._apply, policy, resolution)
        self.policy = policy
        self.in_force_since = time.monotonic()
        self._resolving.accept()
        parts.context.names = self._resolving.labels()
        if parts.reactions.scripts is not None:
            parts.reactions.scripts.settings = policy.settings
        parts.reactions.killer.settings = policy.settings
        if parts.reactions.notifier is not None:
            parts.reactions.notifier.settings = policy.notify
        if parts.recorder is not None:
            parts.recorder.settings = policy.settings
        return generation

    def _apply(self, policy: Policy, resolution: Resolution) -> int:
        tables = compile_policy(policy, resolution)
        # Known before the flip: the first record may come at once.
        self._parts.naming.add(self._parts.kernel.generation + 1, policy)
        return self._parts.kernel.apply(tables)

    def tell_uncovered(self) -> None:
        """What the policy asks for and this kernel does not let us do must not pass unsaid."""
        (lsm,) = (tier for tier in self._parts.kernel.tiers if tier.name == LSM)
        if self.policy.settings.deny_socket_fds and not lsm.active:
            message = f"deny_socket_fds is not carried out: {lsm.reason}"
            self._parts.reactions.notice("not-covered", message)
            self._parts.say(f"aegis: {message}")

    async def refresh_names_forever(self) -> None:
        """Look names up again and again; what they mean now is put in force."""
        await self._resolving.refresh_forever(self._names_changed)

    async def _names_changed(self, resolution: Resolution) -> None:
        async with self.lock:
            try:
                await asyncio.to_thread(self._apply, self.policy, resolution)
            except AegisError as error:
                self._tell_name("names-not-applied", f"names keep their old addresses: {error}", {})
            else:
                self._parts.context.names = self._resolving.labels()

    def _tell_name(self, kind: str, message: str, fields: Mapping[str, Any]) -> None:
        self._parts.reactions.notice(kind, message, fields)
        self._parts.say(message)

    async def reload(self) -> dict[str, Any]:
        """Put the files' policy in force.

        :raises AegisError: with every reason; the old policy stays in force.
        """
        notice = self._parts.reactions.notice
        async with self.lock:
            systemd.notify("RELOADING=1")
            try:
                loaded = await asyncio.to_thread(load_policy, self._parts.options.config)
                generation = await self.put_in_force(loaded.policy)
                self.last_ok = True
            except AegisError as error:
                self.last_ok = False
                message = "reload failed, the old policy stays in force"
                notice("reload-failed", message, {"error": {"message": str(error)}})
                raise
            finally:
                self._changed()
                systemd.notify("READY=1")
        notice("reloaded", "policy reloaded", {"aegis": {"generation": generation}})
        self._tasks.spawn(self._retire())  # nobody who asked has to wait for it
        self.say_warnings(loaded)
        self.tell_uncovered()
        self._parts.say(f"aegis: reloaded, generation {generation}")
        return {
            "generation": generation,
            "rules": len(loaded.policy.rules),
            "warnings": [str(warning) for warning in loaded.warnings],
        }

    async def _retire(self) -> None:
        async with self.lock:
            await asyncio.to_thread(self._parts.kernel.retire)

    async def reload_by_signal(self) -> None:
        try:
            await self.reload()
        except AegisError as error:
            self._parts.say(f"{error}\naegis: reload failed, the old policy stays in force")

    def say_warnings(self, loaded: Loaded) -> None:
        for warning in loaded.warnings:
            self._parts.say(str(warning))
