# SPDX-License-Identifier: Apache-2.0
"""What the agent answers on the control socket."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aegis.bpf.state import read_state
from aegis.confirming import Confirming
from aegis.control_server import Request
from aegis.errors import ControlError
from aegis.parts import Parts
from aegis.reloading import Reloading


class Requests:
    """*health*: what is wrong, and what was proven; *stop* is called when the agent is to end

    and nobody is to start it anew, since all is unloaded.
    """

    def __init__(
        self,
        parts: Parts,
        reloading: Reloading,
        confirming: Confirming,
        health: Callable[[], Mapping[str, Any]],
        stop: Callable[[], None],
    ) -> None:
        self._confirming = confirming
        self._health = health
        self._parts = parts
        self._reloading = reloading
        self._stop = stop
        self._started = time.monotonic()

    async def handle(self, request: Request) -> dict[str, Any]:
        """See ``control`` for the requests there are."""
        match request:
            case {"do": "reload"}:
                return await self._reloading.reload(knows=bool(request.get("knows")))
            case {"do": "apply", "config": str(config), "seconds": int(seconds) | float(seconds)}:
                path = Path(config) if config else self._parts.options.config
                knows = bool(request.get("knows"))
                return await self._confirming.apply(path, seconds, knows=knows)
            case {"do": "confirm"}:
                return await self._confirming.confirm()
            case {"do": "give-back"}:
                return await self._confirming.give_back()
            case {"do": "status"}:
                return self.status()
            case {"do": "state"}:
                return {"state": asdict(read_state(self._parts.kernel.instance))}
            case {"do": "record"}:
                return await self._record()
            case {"do": "stop"}:
                self._stop()
                return {"pid": os.getpid()}
        raise ControlError(f"unknown request {request['do']!r}")

    async def _record(self) -> dict[str, Any]:
        """Put in history what was decided until now."""
        recorder = self._parts.recorder
        if recorder is None:
            raise ControlError("not ready")
        await recorder.record()
        if recorder.error is not None:
            raise recorder.error
        return {"path": str(recorder.path)}

    def status(self) -> dict[str, Any]:
        """What only the agent knows; the kernel's own state is read from the pins."""
        parts, policy = self._parts, self._reloading.policy
        reactions, recorder = parts.reactions, parts.recorder
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "config": str(parts.options.config),
            "generation": parts.kernel.generation,
            "mode": str(policy.settings.mode),
            "rules": len(policy.rules),
            "tiers": {tier.name: tier.reason for tier in parts.kernel.tiers},
            "policy_age_s": round(time.monotonic() - self._reloading.in_force_since, 1),
            "last_reload_ok": self._reloading.last_ok,
            **self._health(),
            "held": self._reloading.held,
            "defects": reactions.defects.count,
            "kills": reactions.killer.counts(),
            "scripts": reactions.scripts.counts() if reactions.scripts else {},
            "notifications": dict(reactions.notifier.outcomes) if reactions.notifier else {},
            "existing": asdict(parts.existing),
            "last_good": {
                "path": str(parts.keeper.path) if parts.keeper.path else None,
                "error": parts.keeper.error,
            },
            "log": {
                "path": str(parts.log.path),
                "written": parts.log.written,
                "lost": parts.log.lost,
                "error": str(parts.log.error) if parts.log.error else None,
            },
            "output": dict(reactions.shown()),
            "history": {
                "path": str(parts.options.history),
                "error": str(recorder.error) if recorder and recorder.error else None,
            },
        }
