# SPDX-License-Identifier: Apache-2.0
"""Hook scripts: which run for an event, how many at once, what is told of them."""

import asyncio
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegis.actions.defects import OnDefect, raise_it
from aegis.actions.notice import Tell
from aegis.actions.refusals import Refusals
from aegis.actions.runs import Order, Runner, Runs
from aegis.actions.script_file import find_script, list_scripts, open_script
from aegis.actions.script_job import ScriptResult
from aegis.actions.script_places import Places, Run
from aegis.errors import ScriptError
from aegis.events.ecs import Record, to_json_line
from aegis.policy.model import Settings

DIGEST_S = 60.0
LOOK_S = 0.25  # while scripts take turns


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    path: Path
    text: bytes
    env: dict[str, str]
    event_id: str


class ScriptRunner:
    """Runs scripts on the running event loop; *settings* may be replaced at any time.

    At most ``script_jobs`` run at once; which, is said in ``Places``.

    *runner* does the running, in a cgroup for each run where that is possible.
    """

    def __init__(
        self,
        settings: Settings,
        tell: Tell,
        runner: Runner | None = None,
        on_defect: OnDefect = raise_it,
    ) -> None:
        self.settings = settings
        self._runner = runner or Runs()
        self._on_defect = on_defect
        self.outcomes: Counter[str] = Counter()  # by kind of notice
        self.started = 0
        self.dropped = 0
        self._tell = tell
        self._refusals = Refusals(tell, DIGEST_S)
        self._listed = -1  # scripts there were when last looked; -1: nobody did
        self._waiting: deque[_Job] = deque()
        self._running: dict[asyncio.Task[None], _Job] = {}
        self._places = Places(settings.script_jobs)
        self._turn: asyncio.TimerHandle | None = None
        self.uncaged = 0  # runs without a cgroup of their own
        self._cageless_told = ""
        self._dropped_untold = 0
        self._digest: asyncio.TimerHandle | None = None

    def submit(self, record: Record, env: dict[str, str], names: Iterable[str] | None) -> None:
        """Queue the scripts *names* (None: every one) for an event; call once an event.

        *record* is what they get on stdin. Never waits, never raises for a script.
        """
        names = None if names is None else tuple(names)
        wanted = self._listed if names is None else len(names)
        if wanted >= 0 and len(self._waiting) >= self.settings.script_queue:
            self._drop(wanted)  # a flood is not worth a look at the directories for each event
            return
        paths = self._paths(names, record["event"]["id"])
        if names is None:
            self._listed = len(paths)
        if not paths:
            return
        text = to_json_line(record).encode() + b"\n"
        for path in paths:
            if len(self._waiting) >= self.settings.script_queue:
                self._drop(1)
                continue
            job = _Job(path, text, env, record["event"]["id"])
            self._waiting.append(job)
        self._start_waiting()

    def counts(self) -> dict[str, int]:
        """Return how many were started and dropped, and by kind of notice how they ended."""
        ours = {"started": self.started, "dropped": self.dropped, "uncaged": self.uncaged}
        return ours | self.outcomes

    async def drain(self) -> None:
        """Wait until nothing runs and nothing waits."""
        while self._running:
            await asyncio.wait([*self._running])
        await self._runner.drain()

    async def close(self) -> None:
        """Kill what runs, drop what waits, tell how many those were."""
        self._drop(len(self._waiting))
        self._waiting.clear()
        self._tell_dropped()
        self._refusals.end()
        for task in self._running:
            task.cancel()
        await self.drain()
        if self._turn is not None:
            self._turn.cancel()

    def _paths(self, names: Iterable[str] | None, event_id: str) -> tuple[Path, ...]:
        dirs = self.settings.script_dirs
        if names is None:
            try:
                return list_scripts(dirs)
            except OSError as error:
                self._refused(f"{error.filename}: {error.strerror}", event_id)
                return ()
        paths = []
        for name in names:
            try:
                paths.append(find_script(dirs, name))
            except ScriptError as error:
                self._refused(str(error), event_id)
        return tuple(paths)

    def _start_waiting(self) -> None:
        self._places.most = self.settings.script_jobs
        while self._places.has_room:
            path = self._places.pick(job.path for job in self._waiting)
            if path is None:
                break
            self._start(path)
        self._plan_turn()
        if not self._waiting:
            self._tell_dropped()

    def _start(self, path: Path) -> None:
        """Start the oldest job of this script."""
        job = next(job for job in self._waiting if job.path == path)
        self._waiting.remove(job)
        self.started += 1
        run = Run(path)
        self._places.runs.add(run)
        task = asyncio.create_task(self._run(job, run))
        self._running[task] = job
        task.add_done_callback(lambda _: self._places.runs.discard(run))
        task.add_done_callback(self._ended)

    def _in_need(self) -> Path | None:
        return self._places.pick_in_need(job.path for job in self._waiting)

    def _plan_turn(self) -> None:
        """Only while somebody waits for a place, or to go on."""
        if self._turn is None and (self._in_need() or self._places.has_suspended):
            self._turn = asyncio.get_running_loop().call_later(LOOK_S, self._take_turns)

    def _take_turns(self) -> None:
        self._turn = None
        path = self._in_need()
        if path is None:
            self._places.resume()
        elif self._places.make_room():
            self._start(path)
        self._start_waiting()

    async def _run(self, job: _Job, run: Run) -> None:
        try:
            result = await self._run_checked(job, run)
        except (ScriptError, OSError) as error:
            self._refused(str(error), job.event_id)
        else:
            self._finished(job, result)

    async def _run_checked(self, job: _Job, run: Run) -> ScriptResult:
        script = open_script(job.path)
        settings = self.settings
        uid = os.geteuid() if settings.script_user is None else settings.script_user
        try:
            order = Order(
                str(job.path), job.text, job.env, settings.script_timeout, uid,
                job.event_id, script,
            )  # fmt: skip
            return await self._runner.run(order, lambda pid, freeze: run.started(freeze))
        finally:
            os.close(script)

    def _tell_cageless(self, reason: str) -> None:
        """Once for each reason: what clears its environment and its session outlives a run."""
        if reason:
            self.uncaged += 1
        if reason != self._cageless_told:
            self._cageless_told = reason
            self._tell("scripts-uncaged", f"no cgroup for a run of a hook script: {reason}", {})

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._start_waiting()
        if not task.cancelled():
            error = task.exception()
            if error is not None:  # a defect must not pass in silence
                self._on_defect(error)

    def _refused(self, reason: str, event_id: str) -> None:
        self.outcomes["script-refused"] += 1
        self._refusals.happened(reason, event_id)

    def _finished(self, job: _Job, result: ScriptResult) -> None:
        self._tell_cageless(result.uncaged)
        kind, ending = _ending(result, self.settings.script_timeout)
        self._places.learn(job.path, hangs=result.timed_out)
        seconds = result.duration_ns / 1e9
        fields: dict[str, Any] = {
            "event": {
                "outcome": "success" if kind == "script-finished" else "failure",
                "duration": result.duration_ns,
                "category": ["process"],
                "type": ["end"],
            },
            "process": {"pid": result.pid, "name": job.path.name, "executable": str(job.path)},
            "aegis": {
                "event_id": job.event_id,
                "output": result.output.decode("utf-8", "surrogateescape"),
                "output_bytes": result.output_bytes,
            },
        }
        if result.status is not None:
            # As a shell shows it: 128 + N for signal N.
            fields["process"]["exit_code"] = (
                result.status if result.status >= 0 else 128 - result.status
            )
        self._count(kind, f"script {job.path.name} {ending} after {seconds:.1f} s", fields)

    def _count(self, kind: str, message: str, fields: dict[str, Any]) -> None:
        self.outcomes[kind] += 1
        self._tell(kind, message, fields)

    def _drop(self, count: int) -> None:
        if not count:
            return
        self.dropped += count
        self._dropped_untold += count
        if self._digest is None:
            loop = asyncio.get_running_loop()
            self._digest = loop.call_later(DIGEST_S, self._tell_dropped)

    def _tell_dropped(self) -> None:
        """One digest for each time the queue was too short, and at least one a minute."""
        if self._digest is None:
            return
        self._digest.cancel()
        self._digest = None
        count, self._dropped_untold = self._dropped_untold, 0
        message = f"{count} script runs dropped: more than {self.settings.script_queue} waited"
        fields = {"event": {"outcome": "failure"}, "aegis": {"dropped": count}}
        self._tell("scripts-dropped", message, fields)


def _ending(result: ScriptResult, limit: int) -> tuple[str, str]:
    if result.status is None:
        return "script-timeout", "cannot be killed, given up"
    if result.timed_out:
        return "script-timeout", f"killed at the limit of {limit} s,"
    if result.status < 0:
        return "script-failed", f"died of {_signal_name(-result.status)}"
    if result.status:
        return "script-failed", f"failed with exit status {result.status}"
    return "script-finished", "finished"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"
