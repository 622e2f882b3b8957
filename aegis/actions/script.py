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

from aegis.actions.account import Account, account_of
from aegis.actions.notice import Tell
from aegis.actions.script_file import find_script, list_scripts
from aegis.actions.script_job import ScriptResult, run_script
from aegis.actions.script_strays import kill_strays
from aegis.errors import ScriptError
from aegis.events.ecs import Record, to_json_line
from aegis.policy.model import Settings

DIGEST_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    path: Path
    text: bytes
    env: dict[str, str]
    event_id: str


class ScriptRunner:
    """Runs scripts on the running event loop; *settings* may be replaced at any time.

    At most ``script_jobs`` run at once, of which neither one script alone nor those
    that last ran into their limit ever take all (unless that is 1): they cannot
    hold up anybody else's reaction.
    """

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self.settings = settings
        self.outcomes: Counter[str] = Counter()  # by kind of notice
        self.started = 0
        self.dropped = 0
        self._tell = tell
        self._waiting: deque[_Job] = deque()
        self._running: dict[asyncio.Task[None], _Job] = {}
        self._hanging: set[Path] = set()  # scripts whose last run had to be ended
        self._events: Counter[str] = Counter()  # jobs not ended, by event
        self._sweeps: set[asyncio.Task[int]] = set()
        self._dropped_untold = 0
        self._digest: asyncio.TimerHandle | None = None

    def submit(self, record: Record, env: dict[str, str], names: Iterable[str] | None) -> None:
        """Queue the scripts *names* (None: every one) for an event; call once an event.

        *record* is what they get on stdin. Never waits, never raises for a script.
        """
        paths = self._paths(names, record["event"]["id"])
        if not paths:
            return
        text = to_json_line(record).encode() + b"\n"
        for path in paths:
            if len(self._waiting) >= self.settings.script_queue:
                self._drop(1)
                continue
            job = _Job(path, text, env, record["event"]["id"])
            self._events[job.event_id] += 1
            self._waiting.append(job)
        self._start_waiting()

    def counts(self) -> dict[str, int]:
        """Return how many were started and dropped, and by kind of notice how they ended."""
        return {"started": self.started, "dropped": self.dropped, **self.outcomes}

    async def drain(self) -> None:
        """Wait until nothing runs and nothing waits."""
        while self._running or self._sweeps:
            await asyncio.wait([*self._running, *self._sweeps])

    async def close(self) -> None:
        """Kill what runs, drop what waits, tell how many those were."""
        self._drop(len(self._waiting))
        self._waiting.clear()
        self._tell_dropped()
        for task in self._running:
            task.cancel()
        await self.drain()

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
        while len(self._running) < self.settings.script_jobs:
            job = self._next_job()
            if job is None:
                break
            self._waiting.remove(job)
            self.started += 1
            task = asyncio.create_task(self._run(job))
            self._running[task] = job
            task.add_done_callback(self._ended)
        if not self._waiting:
            self._tell_dropped()

    def _next_job(self) -> _Job | None:
        """The oldest job of the script that runs least; None: each has its share."""
        running = Counter(job.path for job in self._running.values())
        share = max(1, self.settings.script_jobs - 1)
        waiting: Iterable[_Job] = self._waiting
        if sum(running[path] for path in self._hanging) >= share:
            waiting = (job for job in waiting if job.path not in self._hanging)
        job = min(waiting, key=lambda job: running[job.path], default=None)
        return None if job is None or running[job.path] >= share else job

    async def _run(self, job: _Job) -> None:
        try:
            limit = self.settings.script_timeout
            result = await run_script(job.path, job.text, job.env, limit, self._account())
        except (ScriptError, OSError) as error:
            self._refused(str(error), job.event_id)
        else:
            self._finished(job, result)

    def _account(self) -> Account | None:
        uid = self.settings.script_user
        return None if uid in (None, os.geteuid()) else account_of(uid)

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        self._events[job.event_id] -= 1
        if not self._events[job.event_id]:
            # Not earlier: another script's processes carry the same id.
            del self._events[job.event_id]
            uids = {os.geteuid(), self.settings.script_user}
            sweep = asyncio.create_task(asyncio.to_thread(kill_strays, job.event_id, uids))
            self._sweeps.add(sweep)
            sweep.add_done_callback(self._sweeps.discard)
        self._start_waiting()
        if not task.cancelled():
            task.result()  # a defect must not pass in silence

    def _refused(self, reason: str, event_id: str) -> None:
        fields = {"event": {"outcome": "failure"}, "aegis": {"event_id": event_id}}
        self._count("script-refused", f"script not run: {reason}", fields)

    def _finished(self, job: _Job, result: ScriptResult) -> None:
        kind, ending = _ending(result, self.settings.script_timeout)
        (self._hanging.add if result.timed_out else self._hanging.discard)(job.path)
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
