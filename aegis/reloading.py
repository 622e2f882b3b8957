# SPDX-License-Identifier: Apache-2.0
"""Intent on its way down: a policy put in force, again and again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aegis import lockout, systemd
from aegis.bpf.rights import keep_rights
from aegis.bpf.tiers import LSM
from aegis.bpf.trial import boot_ns
from aegis.config.load import Loaded, load_policy
from aegis.errors import AegisError, ControlError, KernelError
from aegis.parts import Parts
from aegis.policy.compile import compile_policy
from aegis.policy.model import Address, Mode, Policy, Resolution
from aegis.resolving import Resolving
from aegis.tasks import TableLock, Tasks

RIGHTS_AGAIN_S = 5.0

Check = Callable[[Policy, Resolution], Awaitable[None]]


class Reloading:
    """The policy in force. *changed* is called after a reload, whatever came of it.

    Who holds ``lock`` has the kernel's tables to himself; ``lock.writing()`` is when they change.
    """

    def __init__(self, parts: Parts, tasks: Tasks, changed: Callable[[], None]) -> None:
        self._parts = parts
        self._tasks = tasks
        self._changed = changed
        self._resolving = Resolving(self._tell_name, parts.brokers.look_up)
        self.lock = TableLock()
        self.policy = Policy()
        self.in_force_since = time.monotonic()
        self.last_ok = True
        self.held = ""  # why the files' policy is not what is in force
        self.accepted: Callable[[], object] = bool  # called when a reload was asked for and done

    def read(self, config: Path) -> Loaded:
        """What *config* says; its paths lead through other users' directories, too."""
        with self._parts.brokers.following() as follow:
            return load_policy(config, follow=follow)

    def overruled(self, policy: Policy) -> Policy:
        """*policy* with what the command line says instead."""
        mode = self._parts.options.mode
        if mode is None:
            return policy
        return replace(policy, settings=replace(policy.settings, mode=mode))

    def recall(self, names: Mapping[str, frozenset[Address]], age: float) -> None:
        """See :meth:`Resolving.recall`."""
        self._resolving.recall(names, age)

    async def put_in_force(
        self, policy: Policy, seconds: float = 0.0, check: Check | None = None
    ) -> int:
        """Compile and flip; an error, also one of *check*, changes nothing.

        *seconds*: on trial for so long; 0: for good.
        """
        policy = self.overruled(policy)
        resolution = await self._resolving.start(policy)
        try:
            if check is not None:
                await check(policy, resolution)
            generation = await self._put(policy, resolution, seconds)
        except BaseException:
            self._resolving.reject()
            raise
        self._resolving.accept()
        self.held = ""
        self._follow(policy)
        return generation

    def adopt(self, policy: Policy, *, known: bool = True) -> None:
        """An earlier agent put it in force; *known*: it is *policy*, else only its number is."""
        policy = self.overruled(policy)
        if known:
            self._parts.naming.add(self._parts.kernel.generation, policy)
        self._follow(policy)

    def _follow(self, policy: Policy) -> None:
        """Everybody acts by *policy* from now on."""
        parts = self._parts
        self.policy = policy
        self.in_force_since = time.monotonic()
        parts.context.names = self._resolving.labels()
        parts.brokers.want(policy)
        if parts.reactions.scripts is not None:
            parts.reactions.scripts.settings = policy.settings
        parts.reactions.killer.settings = policy.settings
        if parts.reactions.notifier is not None:
            parts.reactions.notifier.settings = policy.notify
        if parts.recorder is not None:
            parts.recorder.settings = policy.settings

    def give_up_rights(self) -> None:
        """Once the start is over."""
        self._parts.kernel.attach_packets = self._parts.brokers.attach
        try:
            keep_rights(frozenset())
        except KernelError as error:
            # A thread that waits for a disk answers later; until then it is said, not the end.
            self._parts.reactions.notice("rights-kept", f"{error}: tried again")
            self._tasks.spawn(self._try_again())

    async def _try_again(self) -> None:
        await asyncio.sleep(RIGHTS_AGAIN_S)
        self.give_up_rights()

    async def _put(self, policy: Policy, resolution: Resolution, seconds: float = 0.0) -> int:
        tables = await asyncio.to_thread(compile_policy, policy, resolution)
        # Known before the flip: the first record may come at once.
        self._parts.naming.add(self._parts.kernel.next_generation, policy)
        expires = boot_ns() + int(seconds * 1e9) if seconds else 0
        with self.lock.writing():
            return await asyncio.to_thread(self._parts.kernel.apply, tables, expires)

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
            if self.held or self._parts.kernel.trial is not None:
                return  # not now: see apply_late_names()
            await self._apply_names(resolution)

    @property
    def resolution(self) -> Resolution:
        """What the names of the policy in force mean."""
        return self._resolving.resolution

    async def apply_late_names(self) -> None:
        """What changed while a policy was on trial."""
        await self._apply_names(self._resolving.resolution)

    async def _apply_names(self, resolution: Resolution) -> None:
        try:
            await self._put(self.policy, resolution)
        except AegisError as error:
            self._tell_name("names-not-applied", f"names keep their old addresses: {error}", {})
        else:
            self._parts.context.names = self._resolving.labels()

    def _tell_name(self, kind: str, message: str, fields: Mapping[str, Any]) -> None:
        self._parts.reactions.notice(kind, message, fields)
        self._parts.say(message)

    async def reload(self, *, knows: bool = False) -> dict[str, Any]:
        """Put the files' policy in force; *knows*: even if it locks somebody out.

        :raises AegisError: with every reason; the old policy stays in force.
        """
        notice = self._parts.reactions.notice
        async with self.lock:
            systemd.notify("RELOADING=1")
            try:
                await self._end_trial()
                loaded = await asyncio.to_thread(self.read, self._parts.options.config)
                check = None if knows else self._check
                generation = await self.put_in_force(loaded.policy, check=check)
                self.accepted()
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

    async def _end_trial(self) -> None:
        """One that is over is none, also if somebody else wrote its deadline."""
        trial = self._parts.kernel.trial
        if trial is not None and trial.is_over:
            with self.lock.writing():
                await asyncio.to_thread(self._parts.kernel.take_back)
        self.refuse_on_trial()

    def refuse_on_trial(self) -> None:
        """
        :raises ControlError: while a policy waits for confirmation.
        """
        trial = self._parts.kernel.trial
        if trial is not None:
            left = f"for {max(trial.left_s, 0):.0f} s more"
            raise ControlError(f"a policy is on trial {left}: aegis confirm, or confirm --no")

    async def _check(self, policy: Policy, resolution: Resolution) -> None:
        """From watching to enforcing is the one step that can lock out who just watched."""
        if self.policy.settings.mode is Mode.OBSERVE:
            await lockout.check(self._parts, policy, resolution)

    async def _retire(self) -> None:
        async with self.lock:
            with self.lock.writing():
                await asyncio.to_thread(self._parts.kernel.retire)

    async def reload_by_signal(self) -> None:
        try:
            await self.reload()
        except AegisError as error:
            self._parts.say(f"{error}\naegis: reload failed, the old policy stays in force")

    def say_warnings(self, loaded: Loaded) -> None:
        for warning in loaded.warnings:
            self._parts.say(str(warning))
