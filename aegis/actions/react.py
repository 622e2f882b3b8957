# SPDX-License-Identifier: Apache-2.0
"""What is done about an event: kill, log, scripts and notifications, in that order."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aegis.actions.defects import Defects
from aegis.actions.kill import Killer, KillResult, KillStatus
from aegis.actions.log import EventLog
from aegis.actions.notify import Notifier
from aegis.actions.script import ScriptRunner
from aegis.actions.script_env import script_env
from aegis.events.context import Context
from aegis.events.ecs import Record, to_ecs, to_ecs_notice, to_json_line
from aegis.events.event import Event, KillBy
from aegis.policy.model import Settings

OnRecord = Callable[[Record], None]


class View(Protocol):
    """Whoever watches. What it does not want as a record it gets as the line of the log."""

    def record(self, record: Record) -> None: ...

    def wants_record(self) -> bool: ...

    def line(self, line: str) -> None: ...

    def flush(self) -> None: ...

    def status(self) -> Mapping[str, Any]: ...


_REMINDER_S = 60.0  # to say again that a process was not killed: it asks ten times a second
_REMINDERS_MAX = 1024


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
        view: View | None = None,
    ) -> None:
        self.context = context
        self.log = log
        self.scripts = scripts
        self.notifier: Notifier | None = None
        self.on_record = on_record if view is None else view.record
        self._view = view
        self.killer = Killer(Settings())
        self.defects = Defects(self.notice)
        self._spared: OrderedDict[tuple[int, int, KillStatus], float] = OrderedDict()

    def handle(self, event: Event) -> None:
        """React to *event*; the log is written by ``flush``. Never raises: see ``Defects``."""
        killed = None
        # First of all: the longer it waits, the more the process has done.
        with self.defects.contained():
            killed = self.killer.kill(event) if _kills(event) else None
        with self.defects.contained():
            record = to_ecs(event, self.context)
            self._tell_of(event, record, killed)

    def _tell_of(self, event: Event, record: Record, killed: KillResult | None) -> None:
        if not event.silent:
            with self.defects.contained():
                self._show(record, log=event.actions.log)
        if killed is not None and self._is_news(killed, event):
            with self.defects.contained():
                self._tell_kill(killed, record)
        if not event.silent and not event.sends_nothing:
            with self.defects.contained():
                self._notify(event, record)
            with self.defects.contained():
                self._run_scripts(event, record)

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

    def wants_record(self) -> bool:
        """Whether an event that is only logged may not come as ``log_line``."""
        if self._view is None:
            return self.on_record is not None
        return self._view.wants_record()

    def shown(self) -> Mapping[str, Any]:
        """How many lines whoever watches did not take (``lost``), and why (``error``)."""
        return {"lost": 0, "error": None} if self._view is None else self._view.status()

    def log_line(self, line: str) -> None:
        """An event that is only logged, as its line."""
        if self.log is not None:
            self.log.add(line)
        if self._view is not None:
            self._view.line(line)

    def flush(self) -> None:
        """Write what was logged: to be called once a batch of events."""
        if self.log is not None:
            self.log.flush()

    def _show(self, record: Record, *, log: bool) -> None:
        if log and self.log is not None:
            self.log.add(to_json_line(record))
        if self.on_record is not None:
            self.on_record(record)

    def _is_news(self, result: KillResult, event: Event) -> bool:
        if result.status is KillStatus.KILLED:
            return True
        key = (event.pid, event.start_boot_ns, result.status)
        now = time.monotonic()
        if now - self._spared.get(key, -_REMINDER_S) < _REMINDER_S:
            return False
        self._spared[key] = now
        self._spared.move_to_end(key)
        if len(self._spared) > _REMINDERS_MAX:
            self._spared.popitem(last=False)
        return True

    def _tell_kill(self, result: KillResult, record: Record) -> None:
        done = result.status is KillStatus.KILLED
        kind = "process-killed" if done else "kill-skipped"
        reason = f" ({result.detail})" if result.detail else ""
        others = f" with {result.descendants} descendants" if result.descendants else ""
        message = f"process {result.pid}: {result.status}{others}{reason}"
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
                    "descendants": result.descendants,
                },
            },
        }
        self.notice(kind, message, fields)

    def _notify(self, event: Event, record: Record) -> None:
        if self.notifier is not None and event.actions.notify:
            self.notifier.submit(record, event.start_boot_ns)

    def _run_scripts(self, event: Event, record: Record) -> None:
        if self.scripts is None:
            return
        if event.actions.notify:
            self.scripts.submit(record, script_env(event, record), None)
        elif event.actions.scripts:
            self.scripts.submit(record, script_env(event, record), event.actions.scripts)


def _kills(event: Event) -> bool:
    """Whether the kernel killed the process or asks for it; not for a policy long gone."""
    return event.kill is KillBy.HOOK or (event.kill is not None and event.actions.kill)
