# SPDX-License-Identifier: Apache-2.0
"""The loop: start, wiring of both lanes, signals, shutdown.

Intent goes down (``reloading``): files → policy → tables → kernel. Facts come up
(``facts``): ring → events → reactions. Here, and only here, they meet.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 not first when a system call may fail
import os
import signal
from collections.abc import Mapping
from typing import Any

from aegis import control, control_server, last_good, systemd
from aegis.actions.notice import Tell
from aegis.actions.notify import Notifier
from aegis.actions.processes import spared_pids
from aegis.actions.react import View
from aegis.actions.script import ScriptRunner
from aegis.bpf import memory
from aegis.bpf.kernel import Kernel
from aegis.bpf.state import read_state
from aegis.broker.opener import Opener
from aegis.config.load import Loaded, load_policy
from aegis.confirming import Confirming
from aegis.errors import AegisError
from aegis.existing import Existing
from aegis.facts import Facts
from aegis.guarding import Guarding
from aegis.metrics import MetricsFile
from aegis.parts import Options, Say, make_parts
from aegis.policy.model import Policy
from aegis.proving import Proving
from aegis.recording import Recorder
from aegis.reloading import Reloading
from aegis.requests import Requests
from aegis.tasks import Tasks


class Agent:
    """One run. *say* gets lines for the administrator, *view* every record."""

    def __init__(
        self, options: Options, say: Say, view: View, opener: Opener, kernel: Kernel
    ) -> None:
        self._after_batch = view.flush
        self._stopping = asyncio.Event()
        self._tasks = Tasks(self._stopping.set, say)
        self._parts = parts = make_parts(options, say, view, opener, kernel)
        self._reloading = Reloading(parts, self._tasks, changed=self._policy_changed)
        self._confirming = Confirming(parts, self._reloading, self._tasks)
        self._proving = Proving(parts, self._reloading.lock, view.flush)
        self._guarding = Guarding(parts, self._reloading, view.flush)
        self._requests = Requests(
            parts, self._reloading, self._confirming, self._health, stop=self._stop_for_good
        )
        self._metrics = MetricsFile(
            parts.kernel.measure, self._requests.status, parts.reactions.notice
        )
        self._server: asyncio.Server | None = None
        self.is_unloaded = False  # asked to end by who unloads

    def _stop_for_good(self) -> None:
        self.is_unloaded = True
        self._stopping.set()

    def _health(self) -> Mapping[str, Any]:
        proven, guarded = self._proving.status(), self._guarding.status()
        degraded = [*proven["degraded"], *guarded["degraded"], *self._parts.brokers.wrong()]
        degraded += self._parts.reactions.defects.wrong()
        return {**proven, **guarded, "degraded": degraded}

    @property
    def instance(self) -> str:
        return self._parts.kernel.instance

    @property
    def notice(self) -> Tell:
        return self._parts.reactions.notice

    async def run(self) -> None:
        """Enforce until SIGTERM, SIGINT or a ``stop`` request; what is in force then stays.

        :raises AegisError: when it cannot start; then nothing of it is in force
            that was not before.
        """
        asyncio.get_running_loop().set_exception_handler(self._tasks.callback_failed)
        memory.save()
        with control.only_one(self.instance):
            try:
                loaded = await asyncio.to_thread(load_policy, self._parts.options.config)
            except AegisError:
                self._say_what_stays()
                self._guarding.give_up()
                raise
            self._reloading.say_warnings(loaded)
            try:
                await self._start(loaded)
                await self._stopping.wait()
            finally:
                await self._stop()
        if self._tasks.failure is not None:
            raise self._tasks.failure

    def _say_what_stays(self) -> None:
        state = read_state(self.instance)
        if state.loaded and state.generation:
            what = f"generation {state.generation}, mode {state.mode}"
            self._parts.say(f"aegis: no start; the policy in force before stays in force: {what}")

    async def _start(self, loaded: Loaded) -> None:
        try:
            await self._put_up(loaded)
        except BaseException:
            self._guarding.give_up()
            raise
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}")
        memory.save()
        self._parts.say("aegis: ready")

    async def _put_up(self, loaded: Loaded) -> None:
        kernel = self._parts.kernel
        kernel.start()
        try:
            kernel.spare(spared_pids())
            self._recall()
            facts, recorder = self._make_lanes(loaded.policy)
            await self._confirming.start(loaded.policy)
            kernel.attach()
            await recorder.inherit(kernel.inherited)
            self._server = await control_server.serve(self.instance, self._requests.handle)
            self._reloading.tell_uncovered()
            self._watch(facts, recorder)
            self._tasks.spawn(self._sweep_existing(facts))
            self._tasks.spawn(self._confirming.warn())
            self._guarding.start()
        except BaseException:
            self._parts.recorder = None  # what it would read at the end is closed now
            kernel.abandon()
            raise

    def _recall(self) -> None:
        """Take from the file of the last good policy what this agent cannot know."""
        path, kernel = self._parts.options.last_good, self._parts.kernel
        if path is None:
            return
        try:
            good, age = last_good.read(path), last_good.age_s(path)
        except (AegisError, OSError):
            return  # it is about to be written anew
        if (good.boot, good.generation) == (last_good.this_boot(), kernel.generation):
            self._parts.naming.add_tables(good.generation, good.tables)
        self._reloading.recall(good.names, age)

    def _make_lanes(self, policy: Policy) -> tuple[Facts, Recorder]:
        """What needs the kernel's maps."""
        parts = self._parts
        kernel, reactions = parts.kernel, parts.reactions
        told = (reactions.notice, parts.brokers, reactions.defects.happened)
        reactions.scripts = ScriptRunner(policy.settings, *told)
        notifier = reactions.notifier = Notifier(policy.notify, *told)
        reactions.killer.is_ours = lambda event: (
            notifier.is_own(event.pid, event.start_boot_ns) or parts.brokers.owns(event.pid)
        )
        parts.facts = Facts(kernel, parts.naming, reactions, self._after_batch)
        parts.recorder = Recorder(
            kernel.sums(),
            lambda: kernel.counters()["decided"],
            parts.options.history,
            tell=reactions.notice,
        )
        return parts.facts, parts.recorder

    def _watch(self, facts: Facts, recorder: Recorder) -> None:
        loop, spawn = asyncio.get_running_loop(), self._tasks.spawn
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self._reloading.reload_by_signal()))
        facts.on_proof = self._proving.arrived
        facts.watch()
        spawn(self._guarding.watch_forever())
        spawn(self._proving.look_forever())
        spawn(self._proving.prove_forever())
        spawn(facts.tick())
        spawn(self._parts.brokers.check_forever())
        spawn(self._parts.log.flush_forever())
        spawn(self._parts.keeper.keep_forever())
        spawn(recorder.record_forever())
        spawn(self._metrics.write_forever(lambda: self._reloading.policy.settings.metrics_file))
        spawn(self._reloading.refresh_names_forever())

    def _policy_changed(self) -> None:
        self._metrics.due.set()

    async def _sweep_existing(self, facts: Facts) -> None:
        parts = self._parts
        existing = Existing(
            parts.kernel.object,
            self._reloading.policy.settings,
            parts.naming,
            parts.reactions.handle,
            parts.reactions.notice,
            parts.brokers.sever,
            on_defect=parts.reactions.defects.happened,
        )
        parts.existing = existing.tally
        await existing.sweep(facts.flush)
        async with self._reloading.lock:
            # Seeing whose sockets those are was the last thing that took more.
            self._reloading.give_up_rights()
        parts.brokers.let_go_of_sever()

    async def _stop(self) -> None:
        parts = self._parts
        systemd.notify("STOPPING=1")
        async with self._reloading.lock:  # a thread that fills tables must not lose them on the way
            self._tasks.cancel()
            self._proving.stop()
        if self._server is not None:
            self._server.close()
            control.socket_path(self.instance).unlink(missing_ok=True)
        if parts.facts is not None:
            parts.facts.close()
        if parts.reactions.scripts is not None:
            await parts.reactions.scripts.close()
        if parts.reactions.notifier is not None:
            await parts.reactions.notifier.close()
        if parts.recorder is not None:
            await parts.recorder.close()
        asked = self._stopping.is_set() and self._tasks.failure is None
        self._guarding.stop(asked=asked)
        parts.keeper.close()
        parts.brokers.close()
        parts.log.close()
        self._after_batch()
        parts.kernel.close()
