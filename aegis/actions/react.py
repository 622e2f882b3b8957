# SPDX-License-Identifier: Apache-2.0
"""What is done about an event: kill, log, scripts and notifications, in that order."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from aegis.actions.kill import KillResult, KillStatus, kill_process
from aegis.actions.log import EventLog
from aegis.actions.notify import Notifier
from aegis.actions.script import ScriptRunner
from aegis.actions.script_env import script_env
from aegis.events.context import Context
from aegis.events.ecs import Record, to_ecs, to_ecs_notice, to_json_line
from aegis.events.event import Event, KillBy

OnRecord = Callable[[Record], None]


class Reactions:
    """Carries out the actions of events; *log*, *scripts*, *notifier* may be set later.

    *on_record* gets every event and every notice, whatever the actions say:
    it is the live view. Every notice is also logged. Both ``EventLog`` and
    ``ScriptRunner`` are made with ``tell=reactions.notice``.
    """

    def __init__(
        self,
        context: Context,
        *,
        log: EventLog | None = None,
        scripts: ScriptRunner | None = None,
        on_record: OnRecord | None = None,
    ) -> None:
        self.context = context
        self.log = log
        self.scripts = scripts
        self.notifier: Notifier | None = None
        self.on_record = on_record
        self.kills: Counter[KillStatus] = Counter()

    def handle(self, event: Event) -> None:
        """React to *event*; the log is written by ``flush``."""
        # First of all: the longer it waits, the more the process has done.
        killed = kill_process(event) if _kills(event) else None
        record = to_ecs(event, self.context)
        if not event.silent:
            self._show(record, log=event.actions.log)
        if killed is not None:
            self._tell_kill(killed, record)
        if not event.silent:
            self._tell_others(event, record)

    def notice(
        self,
        kind: str,
        message: str,
        fields: Mapping[str, Any] | None = None,
        *,
        metric: bool = False,
    ) -> None:
        """Log and show something that is no connection: a ``Tell``."""
        record = to_ecs_notice(kind, message, fields or {}, self.context, metric=metric)
        self._show(record, log=True)

    def flush(self) -> None:
        """Write what was logged: to be called once a batch of events."""
        if self.log is not None:
            self.log.flush()

    def _show(self, record: Record, *, log: bool) -> None:
        if log and self.log is not None:
            self.log.add(to_json_line(record))
        if self.on_record is not None:
            self.on_record(record)

    def _tell_kill(self, result: KillResult, record: Record) -> None:
        self.kills[result.status] += 1
        done = result.status is KillStatus.KILLED
        kind = "process-killed" if done else "kill-skipped"
        reason = f" ({result.detail})" if result.detail else ""
        message = f"process {result.pid}: {result.status}{reason}"
        fields = {
            "event": {
                "outcome": "success" if done else "failure",
                "category": ["process"],
                "type": ["end"] if done else ["info"],
            },
            "process": record["process"],
            "user": record["user"],
            "rule": record["rule"],
            "aegis": {
                "event_id": record["event"]["id"],
                "kill": {
                    "status": result.status.value,
                    "detail": result.detail,
                    "by": result.by.value,
                },
            },
        }
        self.notice(kind, message, fields)

    def _tell_others(self, event: Event, record: Record) -> None:
        if event.sends_nothing:
            return
        if self.notifier is not None and event.actions.notify:
            self.notifier.submit(record)
        if self.scripts is None:
            return
        if event.actions.notify:
            self.scripts.submit(record, script_env(event, record), None)
        elif event.actions.scripts:
            self.scripts.submit(record, script_env(event, record), event.actions.scripts)


def _kills(event: Event) -> bool:
    """Whether the kernel killed the process or asks for it; not for a policy long gone."""
    return event.kill is KillBy.HOOK or (event.kill is not None and event.actions.kill)
