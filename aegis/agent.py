# SPDX-License-Identifier: Apache-2.0
"""The loop: wiring of both lanes, reload, signals, shutdown.

Intent goes down: files → policy → tables → kernel. Facts come up: ring →
events → reactions. Here, and only here, they meet.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aegis import control, systemd
from aegis.actions.log import EventLog
from aegis.actions.react import OnRecord, Reactions
from aegis.actions.script import ScriptRunner
from aegis.bpf.kernel import Kernel
from aegis.bpf.ring import BATCH, Ring, to_event
from aegis.config.load import Loaded, load_policy
from aegis.errors import AegisError, ControlError
from aegis.events.context import Context
from aegis.events.log_file import LOG_PATH
from aegis.naming import Naming
from aegis.policy.compile import compile_policy
from aegis.policy.model import Mode, Policy, Resolution
from aegis.resolving import Resolving

TICK_S = 1.0
BATCHES_A_TURN = 8  # then other work gets the loop
GENERATIONS_KEPT = 64  # to name the rules of records judged a moment ago

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line asked for. *mode*: instead of the policy's own."""

    config: Path
    cgroup: Path
    mode: Mode | None = None
    log: Path = LOG_PATH


class Agent:
    """One run. *say* gets lines for the administrator, *on_record* every record.

    *after_batch* is called when a batch of records was handled.
    """

    def __init__(
        self, options: Options, say: Say, on_record: OnRecord, after_batch: Callable[[], None]
    ) -> None:
        self.options = options
        self._say = say
        self._after_batch = after_batch
        self._started = time.monotonic()
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._context = Context()
        self._reactions = Reactions(self._context, on_record=on_record)
        self._resolving = Resolving(self._tell_name)
        self._naming = Naming(GENERATIONS_KEPT)
        self._kernel = Kernel(options.cgroup)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost = 0
        self._policy: Policy
        self._ring: Ring

    @property
    def instance(self) -> str:
        return self._kernel.instance

    async def run(self) -> None:
        """Enforce until SIGTERM, SIGINT or a ``stop`` request; what is in force then stays.

        :raises AegisError: when it cannot start; then nothing of it is in force
            that was not before.
        """
        with control.only_one(self.instance):
            loaded = await asyncio.to_thread(load_policy, self.options.config)
            for warning in loaded.warnings:
                self._say(str(warning))
            try:
                await self._start(loaded)
                await self._stopping.wait()
            finally:
                await self._stop()

    async def _start(self, loaded: Loaded) -> None:
        self._kernel.start()
        self._ring = self._kernel.open_ring()
        self._lost = self._kernel.counters()["lost"]
        settings = loaded.policy.settings
        self._reactions.log = EventLog(self.options.log, tell=self._reactions.notice)
        self._reactions.scripts = ScriptRunner(settings, tell=self._reactions.notice)
        await self._put_in_force(loaded.policy)
        self._kernel.attach()
        self._server = await control.serve(self.instance, self._handle_request)
        self._watch()
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}")
        self._say("aegis: ready")

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_by_signal()))
        loop.add_reader(self._ring.fileno(), self._drain)
        self._spawn(self._tick())
        self._spawn(self._resolving.refresh_forever(self._names_changed))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A loop that died silently would leave names or the log stale for ever.
            self._say(f"aegis: internal error: {task.exception()!r}; stopping")
            self._failure = task.exception()
            self._stopping.set()

    # ---- intent, down ----

    async def _put_in_force(self, policy: Policy) -> int:
        """Compile and flip; an error changes nothing."""
        if self.options.mode is not None:
            policy = replace(policy, settings=replace(policy.settings, mode=self.options.mode))
        resolution = await self._resolving.start(policy)
        generation = await asyncio.to_thread(self._apply, policy, resolution)
        self._policy = policy
        self._resolving.accept()
        self._context.names = self._resolving.labels()
        if self._reactions.scripts is not None:
            self._reactions.scripts.settings = policy.settings
        return generation

    def _apply(self, policy: Policy, resolution: Resolution) -> int:
        tables = compile_policy(policy, resolution)
        # Known before the flip: the first record may come at once.
        self._naming.add(self._kernel.generation + 1, policy)
        return self._kernel.apply(tables)

    def _tell_name(self, kind: str, message: str, fields: Mapping[str, Any]) -> None:
        self._reactions.notice(kind, message, fields)
        self._say(message)

    async def _names_changed(self, resolution: Resolution) -> None:
        async with self._reloading:
            await asyncio.to_thread(self._apply, self._policy, resolution)
            self._context.names = self._resolving.labels()

    async def reload(self) -> dict[str, Any]:
        """Put the files' policy in force.

        :raises AegisError: with every reason; the old policy stays in force.
        """
        async with self._reloading:
            systemd.notify("RELOADING=1")
            try:
                loaded = await asyncio.to_thread(load_policy, self.options.config)
                generation = await self._put_in_force(loaded.policy)
            except AegisError as error:
                message = "reload failed, the old policy stays in force"
                self._reactions.notice("reload-failed", message, {"error": {"message": str(error)}})
                raise
            finally:
                systemd.notify("READY=1")
        self._reactions.notice("reloaded", "policy reloaded", {"aegis": {"generation": generation}})
        warnings = [str(warning) for warning in loaded.warnings]
        return {"generation": generation, "rules": len(loaded.policy.rules), "warnings": warnings}

    async def _reload_by_signal(self) -> None:
        try:
            done = await self.reload()
        except AegisError as error:
            self._say(f"{error}\naegis: reload failed, the old policy stays in force")
        else:
            for warning in done["warnings"]:
                self._say(warning)
            self._say(f"aegis: reloaded, generation {done['generation']}")
        self._flush()

    # ---- facts, up ----

    def _drain(self) -> None:
        for _ in range(BATCHES_A_TURN):
            records = self._ring.drain()
            for record in records:
                rule, actions = self._naming.name(record)
                self._reactions.handle(to_event(record, rule, actions))
            self._flush()
            if len(records) < BATCH:
                return  # the descriptor polls readable again when there is more

    def _flush(self) -> None:
        self._reactions.flush()
        self._after_batch()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tell_lost()
            self._flush()

    def _tell_lost(self) -> None:
        lost = self._kernel.counters()["lost"]
        if lost > self._lost:
            count = lost - self._lost
            self._reactions.notice(
                "events-lost",
                f"{count} events were lost: the ring was full; verdicts stood",
                {"aegis": {"lost": count}},
            )
        self._lost = lost

    # ---- requests and the end ----

    async def _handle_request(self, request: str) -> dict[str, Any]:
        if request == "reload":
            try:
                return await self.reload()
            finally:
                self._flush()
        if request == "status":
            return self.status()
        if request == "stop":
            self._stopping.set()
            return {"pid": os.getpid()}
        raise ControlError(f"unknown request {request!r}")

    def status(self) -> dict[str, Any]:
        """What only the agent knows; the kernel's own state is read from the pins."""
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "config": str(self.options.config),
            "generation": self._kernel.generation,
            "mode": str(self._policy.settings.mode),
            "rules": len(self._policy.rules),
            "kills": {str(status): count for status, count in self._reactions.kills.items()},
            "log": self._log_status(),
        }

    def _log_status(self) -> dict[str, Any]:
        log = self._reactions.log
        if log is None:
            return {}
        error = str(log.error) if log.error else None
        return {"path": str(log.path), "written": log.written, "lost": log.lost, "error": error}

    async def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        for task in list(self._tasks):
            task.cancel()
        if hasattr(self, "_server"):
            self._server.close()
            control.socket_path(self.instance).unlink(missing_ok=True)
        if hasattr(self, "_ring"):
            asyncio.get_running_loop().remove_reader(self._ring.fileno())
            with contextlib.suppress(AegisError):
                self._drain()
            self._ring.close()
        if self._reactions.scripts is not None:
            await self._reactions.scripts.close()
        if self._reactions.log is not None:
            self._reactions.log.close()
        self._after_batch()
        self._kernel.close()
