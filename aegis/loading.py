# SPDX-License-Identifier: Apache-2.0
"""Early at boot: the last good policy into the kernel, before there is an agent or a network.

Only when there is none are the host's files read: they may have been broken
since, and reading them takes a library and a second.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aegis import control, last_good
from aegis.actions.processes import spared_pids
from aegis.bpf.kernel import Kernel
from aegis.bpf.pins import all_pins
from aegis.errors import AegisError, said_of
from aegis.last_good import LastGood, LastGoodError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Address, Mode
from aegis.resolving import Resolving


@dataclass(frozen=True)
class Outcome:
    """What is in force now; *generation* 0: it was before, and nothing was done."""

    generation: int = 0
    mode: str = ""
    source: Path | None = None
    instead: str = ""  # why it is not the last good policy
    unfinished: str = ""  # what failed when it was in force already


def load(cgroup: Path, config: Path, path: Path) -> Outcome:
    """Put in force what *path* holds, or else the policy of *config*, and let go of it.

    What is in force already is left alone: an agent takes that over.

    :raises AegisError: with every reason; then nothing of it is in force
    """
    kernel = Kernel(cgroup)
    if is_in_force(kernel.instance):
        return Outcome()  # without the lock: a running agent holds it
    outcome = Outcome()
    try:
        with control.only_one(kernel.instance), contextlib.closing(kernel):
            if not is_in_force(kernel.instance):
                outcome = _load(kernel, config, path)
    except OSError as error:
        if not outcome.generation:
            raise
        return replace(outcome, unfinished=said_of(error))
    return outcome


def _load(kernel: Kernel, config: Path, path: Path) -> Outcome:
    instead = ""
    try:
        good = last_good.read(path)
    except LastGoodError as error:
        instead = str(error)
        good = _compile(config, instead, kernel.instance, path.parent)
    generation = _put_in_force(kernel, good)
    _number(path, good, generation, new=bool(instead))
    return Outcome(generation, str(good.tables.mode), config if instead else path, instead)


def is_in_force(instance: str) -> bool:
    return any(pins.is_complete() for pins in all_pins(instance))


def _compile(config: Path, instead: str, instance: str, state: Path) -> LastGood:
    # Half a second of imports, seldom needed.
    from aegis.config.load import load_policy  # noqa: PLC0415
    from aegis.confirming import note_of  # noqa: PLC0415

    try:
        policy = load_policy(config).policy
    except AegisError as error:
        raise AegisError(f"{instead}\n{error}") from None
    if note_of(instance, state).is_about(
        policy
    ):  # tried and not confirmed: the agent would do the same
        policy = replace(policy, settings=replace(policy.settings, mode=Mode.OBSERVE))
    resolving = Resolving(_ignore)
    resolution = asyncio.run(resolving.start(policy))
    return LastGood(compile_policy(policy, resolution), names=_by_name(resolving.labels()))


def _ignore(kind: str, message: str, fields: Mapping[str, Any]) -> None:
    """No name resolves before there is a network; the agent tries again, and tells."""


def _by_name(labels: Mapping[Address, str]) -> dict[str, frozenset[Address]]:
    return {
        name: frozenset(address for address, label in labels.items() if label == name)
        for name in set(labels.values())
    }


def _put_in_force(kernel: Kernel, good: LastGood) -> int:
    kernel.start()
    try:
        kernel.spare(spared_pids())
        generation = kernel.apply(good.tables)
        kernel.attach()
    except BaseException:
        kernel.abandon()
        raise
    return generation


def _number(path: Path, good: LastGood, generation: int, *, new: bool) -> None:
    """Note which generation this is now: so the agent can name what was judged before it came.

    The file's time stays what it was: names age while a host is off. A disk that
    cannot be written is the agent's to tell.
    """
    with contextlib.suppress(OSError):
        numbered = LastGood(good.tables, generation, last_good.this_boot(), good.names)
        written = None if new else path.stat().st_mtime_ns
        last_good.write(path, numbered)
        if written is not None:
            os.utime(path, ns=(written, written))
