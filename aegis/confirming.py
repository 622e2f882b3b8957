# SPDX-License-Identifier: Apache-2.0
"""A policy on trial: put in force, then confirmed, or taken back by the kernel.

What was not confirmed is noted on disk, so that an agent that starts from the very
files does not put it in force for good: a host that was locked may have been reset.
"""

import asyncio
import hashlib
import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from aegis import last_good, lockout
from aegis.errors import AegisError, ControlError
from aegis.events.history import HISTORY_PATH
from aegis.last_good import LastGoodError, this_boot
from aegis.parts import Parts
from aegis.policy.model import Mode, Policy, Where
from aegis.policy.tables import Tables
from aegis.reloading import Reloading
from aegis.tasks import Tasks

SECONDS_MIN, SECONDS_MAX = 1, 3600
_LOOK_S = 1.0  # a timer stands still while the host sleeps: the deadline does not


def digest(policy: Policy) -> str:
    """The same for the same policy, whatever file it stands in."""
    return hashlib.sha256(repr(_plain(policy)).encode("utf-8", "surrogateescape")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Where):
        return None
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return sorted(map(str, value)) if isinstance(value, frozenset) else value


class Note:
    """At *path*, of a policy that was not confirmed: its digest, number, and the boot of that."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_about(self, policy: Policy) -> bool:
        noted = self._read()
        return bool(noted) and noted[0] == digest(policy)  # a second's work for a large one

    def is_of(self, generation: int) -> bool:
        """Whether that is the number the policy was put on trial with."""
        return self._read()[1:] == [str(generation), this_boot()]

    def _read(self) -> list[str]:
        try:
            return self.path.read_text("ascii", "replace").split()
        except OSError:
            return []

    def write(self, policy: Policy, generation: int) -> None:
        """Once this returns it outlives a reset.

        :raises ControlError: when it cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("w") as file:
                file.write(f"{digest(policy)} {generation} {this_boot()}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            message = f"{self.path}: {error.strerror}: nothing is put on trial without a note of it"
            raise ControlError(message) from None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def note_of(instance: str, folder: Path = HISTORY_PATH.parent) -> Note:
    return Note(folder / f"unconfirmed-{instance}")


class Confirming:
    """Beside *reloading*, whose lock it takes for all it does to the kernel."""

    def __init__(self, parts: Parts, reloading: Reloading, tasks: Tasks) -> None:
        self._parts = parts
        self._reloading = reloading
        self._tasks = tasks
        self._first = False  # whether nothing was in force before
        self._before: Policy | None = None  # of the one on trial; None: an earlier agent's
        self._note = note_of(parts.kernel.instance, parts.options.history.parent)
        reloading.accepted = self._note.remove

    # ---- at start ----

    async def start(self, policy: Policy) -> None:
        """Put *policy* in force, unless it is one that was tried and not confirmed."""
        kernel = self._parts.kernel
        trial = kernel.trial
        self._first = not kernel.generation
        if not self._is_unconfirmed(self._reloading.overruled(policy)):
            await asyncio.to_thread(kernel.take_back)
            await self._reloading.put_in_force(policy)
            self._note.remove()
        elif not kernel.generation:
            await self._begin_anew(policy)
        elif trial is not None and not trial.is_over:
            self._reloading.adopt(policy)
            self._tasks.spawn(self._watch())
        else:
            await asyncio.to_thread(kernel.take_back)
            self._reloading.adopt(policy, known=False)
            self._hold("was tried and not confirmed: the one before it stays in force")

    def _is_unconfirmed(self, policy: Policy) -> bool:
        """What is in force for good under the very number was confirmed, by somebody who did not

        get to the note: an agent that was killed, or, without one, who has it elsewhere.
        """
        kernel, note = self._parts.kernel, self._note
        return note.is_about(policy) and (
            kernel.trial is not None or not note.is_of(kernel.generation)
        )

    async def _begin_anew(self, policy: Policy) -> None:
        """*policy* was not confirmed, and these tables are new: after a boot, or beside another

        layout's, whose programs enforce the policy before until ours are attached.
        """
        try:
            tables = await asyncio.to_thread(self._read_last_good)
        except LastGoodError as error:
            settings = replace(policy.settings, mode=Mode.OBSERVE)
            await self._reloading.put_in_force(replace(policy, settings=settings))
            self._hold(f"was tried and not confirmed: it is in force in observe mode: {error}")
            return
        kernel = self._parts.kernel
        self._parts.naming.add_tables(kernel.next_generation, tables)
        await asyncio.to_thread(kernel.apply, tables)
        self._reloading.adopt(policy, known=False)
        self._hold("was tried and not confirmed: the one before it, the last good, is in force")

    def _read_last_good(self) -> Tables:
        """With what the command line says instead."""
        options = self._parts.options
        if options.last_good is None:
            raise LastGoodError("no last good policy is kept")
        tables = last_good.read(options.last_good).tables
        return tables if options.mode is None else replace(tables, mode=options.mode)

    async def warn(self) -> None:
        """An agent must start whatever runs beside it; what its first policy cuts is said."""
        if not self._first:
            return
        try:
            await lockout.check(self._parts, self._reloading.policy, self._reloading.resolution)
        except AegisError as error:
            self._parts.reactions.notice("lock-out", str(error))
            self._parts.say(f"aegis: {error}")

    def _hold(self, what: str) -> None:
        message = f"the policy in {self._parts.options.config} {what}"
        self._reloading.held = message
        self._parts.reactions.notice("not-confirmed", message)
        self._parts.say(f"aegis: {message}")

    # ---- requests ----

    async def apply(self, config: Path, seconds: float, *, knows: bool) -> dict[str, Any]:
        """Put the policy in the files of *config* on trial.

        :raises AegisError: with every reason; the old policy stays in force.
        """
        if not SECONDS_MIN <= seconds <= SECONDS_MAX:
            raise ControlError(f"{seconds:g}: between {SECONDS_MIN} and {SECONDS_MAX} seconds")
        async with self._reloading.lock:
            self._reloading.refuse_on_trial()
            loaded = await asyncio.to_thread(self._reloading.read, config)
            before = None if self._reloading.held else self._reloading.policy

            async def check(policy: Policy, resolution: Any) -> None:
                if not knows:
                    await lockout.check(self._parts, policy, resolution)
                number = self._parts.kernel.next_generation
                await asyncio.to_thread(self._note.write, policy, number)

            try:
                generation = await self._reloading.put_in_force(loaded.policy, seconds, check)
            except BaseException:
                self._note.remove()
                raise
            self._before = before
        self._tell("applied", f"policy of {config} on trial for {seconds:g} s", generation)
        self._tasks.spawn(self._watch())
        return {
            "generation": generation,
            "seconds": seconds,
            "rules": len(loaded.policy.rules),
            "warnings": [str(warning) for warning in loaded.warnings],
            "lasts": self._note.is_about(await self._of_the_files()),
        }

    async def _of_the_files(self) -> Policy:
        """What a reload or start would put in force."""
        try:
            loaded = await asyncio.to_thread(self._reloading.read, self._parts.options.config)
        except AegisError:
            return Policy()
        return self._reloading.overruled(loaded.policy)

    async def confirm(self) -> dict[str, Any]:
        """Have what is on trial stay.

        :raises AegisError: when nothing is, or not any more.
        """
        async with self._reloading.lock:
            with self._reloading.lock.writing():
                await asyncio.to_thread(self._parts.kernel.confirm)
            self._reloading.held = ""
            lasts = self._note.is_about(await self._of_the_files())
            self._note.remove()
            await self._reloading.apply_late_names()
        generation = self._parts.kernel.generation
        self._tell("confirmed", "policy confirmed", generation)
        return {"generation": generation, "lasts": lasts, "config": str(self._parts.options.config)}

    async def give_back(self) -> dict[str, Any]:
        """Take what is on trial back at once.

        :raises ControlError: when nothing is.
        """
        async with self._reloading.lock:
            if self._parts.kernel.trial is None:
                raise ControlError("nothing waits for confirmation")
            await self._take_back()
        return {"generation": self._parts.kernel.generation}

    # ---- the end of a trial ----

    async def _watch(self) -> None:
        """The kernel is back at the old policy by itself; we follow."""
        while True:
            trial = self._parts.kernel.trial
            if trial is None:
                return  # confirmed, or given back
            if trial.is_over:
                async with self._reloading.lock:
                    await self._take_back()
                return
            await asyncio.sleep(min(_LOOK_S, max(trial.left_s, 0.01)))

    async def _take_back(self) -> None:
        kernel, reloading = self._parts.kernel, self._reloading
        with reloading.lock.writing():
            await asyncio.to_thread(kernel.take_back)
        self._tell("taken-back", "policy taken back: it was not confirmed", kernel.generation)
        if self._before is None:
            reloading.adopt(reloading.policy, known=False)
            self._hold("was not confirmed: the one before it is in force again")
            return
        try:
            await reloading.put_in_force(self._before)  # its names and settings, too
        except AegisError as error:
            self._hold(f"is in force with old names: {error}")

    def _tell(self, kind: str, message: str, generation: int) -> None:
        self._parts.reactions.notice(kind, message, {"aegis": {"generation": generation}})
        self._parts.say(f"aegis: {message}")
