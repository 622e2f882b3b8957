# SPDX-License-Identifier: Apache-2.0
"""``tamper_guard`` of a running agent: put up, told of, lifted again.

An agent that is asked to end lifts it: what is in force stays, and can be unloaded. One that ends
otherwise does not: only the next agent, which systemd starts, is let to it; if that cannot start,
for a policy with an error say, it lifts the guard, too.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from aegis.bpf.guard import GUARD, Refusal, is_pinned, lift, refusals_by
from aegis.bpf.tiers import Tier
from aegis.errors import KernelError
from aegis.parts import Parts
from aegis.reloading import Reloading
from aegis.tasks import tick

LOOK_S = 0.2
TOLD_MAX = 10  # a look: what is over is one line


class Guarding:
    """Follows the policy in force. *flush* writes what was told."""

    def __init__(self, parts: Parts, reloading: Reloading, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._parts = parts
        self._reloading = reloading
        self._late = False  # asked for after the start, and that was told

    @property
    def _wanted(self) -> bool:
        return self._reloading.policy.settings.tamper_guard

    @property
    def _tier(self) -> Tier:
        return next(tier for tier in self._parts.kernel.tiers if tier.name == GUARD)

    def start(self) -> None:
        """The last thing before the agent says that it is ready."""
        self._parts.kernel.start_guard(wanted=self._wanted)
        if self._wanted and not self._tier.active:
            self._tell("not-covered", self._lacking(), "failure")

    def _lacking(self) -> str:
        return f"tamper_guard is not carried out: {self._tier.reason}"

    def status(self) -> Mapping[str, Any]:
        """*degraded*: what the policy asks for and is not so."""
        guard = self._parts.kernel.guard
        lacking = self._wanted and guard is None
        return {
            "degraded": [self._lacking()] if lacking else [],
            "refused": guard.counts() if guard is not None else {},
        }

    async def watch_forever(self) -> None:
        """Tell what was refused to whom, and do what a reload asks for."""
        while True:
            self._tell_refusals()
            self._follow()
            if self._parts.kernel.guard is None:
                await tick()  # nothing is refused: no reason to wake an idle host
            else:
                await asyncio.sleep(LOOK_S)

    def _follow(self) -> None:
        guard = self._parts.kernel.guard
        if self._wanted == (guard is not None):
            self._late = False
        elif guard is None:
            if not self._late and self._tier.reason == "lifted":
                self._late = True
                message = "tamper_guard is carried out from the agent's next start on"
                self._tell("not-covered", message, "failure")
        elif self._parts.kernel.trial is None:
            self._lift("the policy in force does not ask for it")

    def give_up(self) -> None:
        """No start comes of it: who is to repair that must be let to what is in force."""
        pins = self._parts.kernel.pins
        if not is_pinned(pins):
            return
        with contextlib.suppress(KernelError, OSError):  # we are not Aegis to it
            lift(pins, told=False)
            self._parts.say("aegis: tamper_guard is lifted: this agent cannot start")

    def stop(self, *, asked: bool) -> None:
        """The agent ends."""
        if self._parts.kernel.guard is None:
            return
        self._tell_refusals()
        if asked:
            self._lift("the agent was asked to end")

    def _lift(self, why: str) -> None:
        try:
            self._parts.kernel.lift_guard()
        except (KernelError, OSError) as error:
            self._tell("guard-kept", f"tamper_guard could not be lifted: {error}", "failure")
        else:
            self._tell("guard-lifted", f"tamper_guard is lifted: {why}", "success")

    def _tell_refusals(self) -> None:
        guard = self._parts.kernel.guard
        if guard is None:
            return
        told = refusals_by(guard.drain())
        for refusals in list(told.values())[:TOLD_MAX]:
            self._tell_refusal(refusals)
        left = sum(map(len, list(told.values())[TOLD_MAX:]))
        if left:
            self._tell("tamper-refused", f"{left} more were refused", "success")
        if told:
            self._parts.reactions.flush()
            self._flush()

    def _tell_refusal(self, refusals: list[Refusal]) -> None:
        first = refusals[0]
        process: dict[str, Any] = {"pid": first.pid, "name": first.comm}
        if first.path:
            process["executable"] = first.path
        fields = {
            "process": process,
            "user": {"id": str(first.uid)},
            "aegis": {"refused": {"times": len(refusals), "what": first.kind}},
        }
        times = f", {len(refusals)} times" if len(refusals) > 1 else ""
        self._tell("tamper-refused", f"{first}{times}", "success", fields)

    def _tell(
        self, kind: str, message: str, outcome: str, fields: Mapping[str, Any] | None = None
    ) -> None:
        merged = {"event": {"outcome": outcome}, **(fields or {})}
        self._parts.reactions.notice(kind, message, merged)
        self._parts.say(f"aegis: {message}")
