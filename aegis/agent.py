# SPDX-License-Identifier: Apache-2.0
"""The loop: wiring of both lanes, reload, signals, shutdown.

Intent goes down: files → policy → tables → kernel. Facts come up (``facts``):
ring → events → reactions. Here, and only here, they meet.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aegis import control, control_server, systemd
from aegis.actions.log import EventLog
from aegis.actions.notify import Notifier
from aegis.actions.processes import spared_pids
from aegis.actions.react import OnRecord, Reactions
from aegis.actions.script import ScriptRunner
from aegis.bpf.kernel import Kernel
from aegis.bpf.tiers import LSM
from aegis.config.load import Loaded, load_policy
from aegis.errors import AegisError, ControlError
from aegis.events.context import Context
from aegis.events.history import HISTORY_PATH
from aegis.events.log_file import LOG_PATH
from aegis.existing import Existing, Tally
from aegis.facts import Facts
from aegis.metrics import MetricsFile
from aegis.naming import Naming
from aegis.policy.compile import compile_policy
from aegis.policy.model import Mode, Policy, Resolution
from aegis.recording import Recorder
from aegis.resolving import Resolving

GENERATIONS_KEPT = 64  # to name the rules of records judged a moment ago

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line asked for. *mode*: instead of the policy's own."""

    config: Path
    cgroup: Path
    mode: Mode | None = None
    log: Path = LOG_PATH
    history: Path = HISTORY_PATH


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
        self._failure: BaseException | None = None
        self._reloading = asyncio.Lock()
        self._context = Context()
        self._reactions = Reactions(self._context, on_record=on_record)
        self._log = EventLog(options.log, tell=self._reactions.notice)
        self._reactions.log = self._log
        self._resolving = Resolving(self._tell_name)
        self._naming = Naming(GENERATIONS_KEPT)
        self._kernel = Kernel(options.cgroup)
        self._metrics = MetricsFile(self._kernel.measure, self.status, self._reactions.notice)
        self._tasks: set[asyncio.Task[None]] = set()
        self._policy = Policy()
        self._in_force_since = self._started
        self._last_reload_ok = True
        self._facts: Facts | None = None
        self._recorder: Recorder | None = None
        self._server: asyncio.Server | None = None
        self._existing = Tally()

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
            self._say_warnings(loaded)
            try:
                await self._start(loaded)
                await self._stopping.wait()
            finally:
                await self._stop()
        if self._failure is not None:
            raise self._failure

    async def _start(self, loaded: Loaded) -> None:
        self._kernel.start()
        try:
            self._kernel.spare(spared_pids())
            facts = Facts(self._kernel, self._naming, self._reactions, self._after_batch)
            self._facts = facts
            self._reactions.scripts = ScriptRunner(
                loaded.policy.settings, tell=self._reactions.notice
            )
            self._reactions.notifier = Notifier(loaded.policy.notify, tell=self._reactions.notice)
            self._recorder = Recorder(
                self._kernel.sums(),
                lambda: self._kernel.counters()["decided"],
                self.options.history,
                tell=self._reactions.notice,
            )
            await self._put_in_force(loaded.policy)
            self._kernel.attach()
            self._tell_uncovered()
        except BaseException:
            self._kernel.abandon()
            raise
        self._server = await control_server.serve(self.instance, self._handle_request)
        self._watch(facts, self._recorder)
        self._spawn(self._sweep_existing(facts))
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}")
        self._say("aegis: ready")

    def _watch(self, facts: Facts, recorder: Recorder) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_by_signal()))
        facts.watch()
        self._spawn(facts.tick())
        self._spawn(self._log.flush_forever())
        self._spawn(recorder.record_forever())
        self._spawn(self._metrics.write_forever(lambda: self._policy.settings.metrics_file))
        self._spawn(self._resolving.refresh_forever(self._names_changed))

    async def _sweep_existing(self, facts: Facts) -> None:
        existing = Existing(
            self._kernel.object,
            self._policy.settings,
            self._naming,
            self._reactions.handle,
            self._reactions.notice,
        )
        self._existing = existing.tally
        await existing.sweep(facts.flush)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A task that died unseen would leave names or the log stale for ever.
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
        self._in_force_since = time.monotonic()
        self._resolving.accept()
        self._context.names = self._resolving.labels()
        if self._reactions.scripts is not None:
            self._reactions.scripts.settings = policy.settings
        self._reactions.killer.settings = policy.settings
        if self._reactions.notifier is not None:
            self._reactions.notifier.settings = policy.notify
        if self._recorder is not None:
            self._recorder.settings = policy.settings
        return generation

    def _apply(self, policy: Policy, resolution: Resolution) -> int:
        tables = compile_policy(policy, resolution)
        # Known before the flip: the first record may come at once.
        self._naming.add(self._kernel.generation + 1, policy)
        return self._kernel.apply(tables)

    def _tell_uncovered(self) -> None:
        """What the policy asks for and this kernel does not let us do must not pass unsaid."""
        (lsm,) = (tier for tier in self._kernel.tiers if tier.name == LSM)
        if self._policy.settings.deny_socket_fds and not lsm.active:
            message = f"deny_socket_fds is not carried out: {lsm.reason}"
            self._reactions.notice("not-covered", message)
            self._say(f"aegis: {message}")

    async def _names_changed(self, resolution: Resolution) -> None:
        async with self._reloading:
            try:
                await asyncio.to_thread(self._apply, self._policy, resolution)
            except AegisError as error:
                self._tell_name("names-not-applied", f"names keep their old addresses: {error}", {})
            else:
                self._context.names = self._resolving.labels()

    def _tell_name(self, kind: str, message: str, fields: Mapping[str, Any]) -> None:
        self._reactions.notice(kind, message, fields)
        self._say(message)

    async def reload(self) -> dict[str, Any]:
        """Put the files' policy in force.

        :raises AegisError: with every reason; the old policy stays in force.
        """
        async with self._reloading:
            systemd.notify("RELOADING=1")
            try:
                loaded = await asyncio.to_thread(load_policy, self.options.config)
                generation = await self._put_in_force(loaded.policy)
                self._last_reload_ok = True
            except AegisError as error:
                self._last_reload_ok = False
                message = "reload failed, the old policy stays in force"
                self._reactions.notice("reload-failed", message, {"error": {"message": str(error)}})
                raise
            finally:
                self._metrics.due.set()
                systemd.notify("READY=1")
        self._reactions.notice("reloaded", "policy reloaded", {"aegis": {"generation": generation}})
        self._spawn(self._retire())  # nobody who asked has to wait for it
        self._say_warnings(loaded)
        self._tell_uncovered()
        self._say(f"aegis: reloaded, generation {generation}")
        return {
            "generation": generation,
            "rules": len(loaded.policy.rules),
            "warnings": [str(warning) for warning in loaded.warnings],
        }

    async def _retire(self) -> None:
        async with self._reloading:
            await asyncio.to_thread(self._kernel.retire)

    async def _reload_by_signal(self) -> None:
        try:
            await self.reload()
        except AegisError as error:
            self._say(f"{error}\naegis: reload failed, the old policy stays in force")

    def _say_warnings(self, loaded: Loaded) -> None:
        for warning in loaded.warnings:
            self._say(str(warning))

    # ---- requests and the end ----

    async def _handle_request(self, request: str) -> dict[str, Any]:
        if request == "reload":
            return await self.reload()
        if request == "status":
            return self.status()
        if request == "record":
            return await self.record()
        if request == "stop":
            self._stopping.set()
            return {"pid": os.getpid()}
        raise ControlError(f"unknown request {request!r}")

    async def record(self) -> dict[str, Any]:
        """Put in history what was decided until now."""
        if self._recorder is None:
            raise ControlError("not ready")
        await self._recorder.record()
        if self._recorder.error is not None:
            raise self._recorder.error
        return {"path": str(self._recorder.path)}

    def status(self) -> dict[str, Any]:
        """What only the agent knows; the kernel's own state is read from the pins."""
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "config": str(self.options.config),
            "generation": self._kernel.generation,
            "mode": str(self._policy.settings.mode),
            "rules": len(self._policy.rules),
            "tiers": {tier.name: tier.reason for tier in self._kernel.tiers},
            "policy_age_s": round(time.monotonic() - self._in_force_since, 1),
            "last_reload_ok": self._last_reload_ok,
            "kills": self._reactions.killer.counts(),
            "scripts": self._reactions.scripts.counts() if self._reactions.scripts else {},
            "notifications": (
                dict(self._reactions.notifier.outcomes) if self._reactions.notifier else {}
            ),
            "existing": asdict(self._existing),
            "log": {
                "path": str(self._log.path),
                "written": self._log.written,
                "lost": self._log.lost,
                "error": str(self._log.error) if self._log.error else None,
            },
            "history": {
                "path": str(self.options.history),
                "error": str(self._recorder.error)
                if self._recorder and self._recorder.error
                else None,
            },
        }

    async def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        async with self._reloading:  # a thread that fills tables must not lose them on the way
            for task in list(self._tasks):
                task.cancel()
        if self._server is not None:
            self._server.close()
            control.socket_path(self.instance).unlink(missing_ok=True)
        if self._facts is not None:
            self._facts.close()
        if self._reactions.scripts is not None:
            await self._reactions.scripts.close()
        if self._reactions.notifier is not None:
            await self._reactions.notifier.close()
        if self._recorder is not None:
            await self._recorder.close()
        self._log.close()
        self._after_batch()
        self._kernel.close()
