# SPDX-License-Identifier: Apache-2.0
"""Notifications to the targets of ``[notify]``: how many, to whom, and again when one fails.

Who does the sending is a child (``notify_child``) that lives as long as it
takes, without our rights. The file of URLs is read, and its owner and mode
checked, each time. No URL is ever told: a target is its line and its scheme.
"""

import asyncio
import json
import math
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass

from aegis.actions.budget import Budget
from aegis.actions.defects import OnDefect, raise_it
from aegis.actions.message import Message, digest_message, event_message
from aegis.actions.notice import Tell
from aegis.actions.processes import TICK_NS, read_stat
from aegis.actions.runs import Order, Runner, Runs
from aegis.errors import AegisError, ScriptError
from aegis.events.ecs import Record
from aegis.policy.model import Notify
from aegis.policy.targets import Target, parse_targets
from aegis.trust import ROOTS

BACKOFF_S = (5.0, 30.0, 180.0)
REST_S = 4.0  # of a target that failed; less than the first of BACKOFF_S
CHILD_S = 30.0
PENDING_MAX = 64  # messages being sent, or waiting to be sent again
_CHILDREN = 2  # at once
_RULES_MAX = 8192  # budgets kept; the limits of two generations
_OWN_S = 5.0  # how long an event may take to get here after its process ended
_ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}


@dataclass(slots=True)
class _Child:
    """*until*: when it is forgotten."""

    start_ticks: int | None  # None: it had ended before we looked
    until: float = math.inf


class Notifier:
    """Sends from the running event loop; *settings* may be replaced at any time.

    *outcomes* counts deliveries, each of one message to one target, as "sent",
    "failed" (given up) and "retried"; and events that were only "digested", or its "own".
    """

    def __init__(
        self,
        settings: Notify,
        tell: Tell,
        runner: Runner | None = None,
        on_defect: OnDefect = raise_it,
    ) -> None:
        self._runner = runner or Runs()
        self._on_defect = on_defect
        self.outcomes: Counter[str] = Counter()
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_CHILDREN)
        self._over: Counter[str] = Counter()  # events for the digest, by rule
        self._digest: asyncio.TimerHandle | None = None
        self._suspect_place = asyncio.Semaphore(1)
        self._suspect: set[str] = set()  # targets that failed when last asked
        self._resting: dict[str, tuple[float, str]] = {}  # targets, until when and why
        self._own: dict[int, _Child] = {}
        self._begin_windows(settings)

    @property
    def settings(self) -> Notify:
        return self._settings

    @settings.setter
    def settings(self, settings: Notify) -> None:
        if settings != self._settings:  # a reload alone must not allow more
            self._begin_windows(settings)

    def _begin_windows(self, settings: Notify) -> None:
        self._settings = settings
        self._all = Budget(settings.limit, settings.window)
        self._by_rule: OrderedDict[str, Budget] = OrderedDict()

    def submit(self, record: Record, start_boot_ns: int) -> None:
        """Notify of an event, or count it for the digest. Never waits, never raises.

        Not of an event of our own children: that would never end. *start_boot_ns*: of
        the event's process.
        """
        if self.settings.urls_file is None:
            return
        if self.is_own(record["process"]["pid"], start_boot_ns):
            self.outcomes["own"] += 1
            return
        rule = record["rule"]["name"]
        budget = self._budget(rule)
        if len(self._tasks) < PENDING_MAX and budget.left() and self._all.left():
            budget.use()
            self._all.use()
            self._send(event_message(record))
            return
        self.outcomes["digested"] += 1
        self._over[rule] += 1
        if self._digest is None:
            loop = asyncio.get_running_loop()
            self._digest = loop.call_later(self.settings.window, self._send_digest)

    async def drain(self) -> None:
        """Wait until nothing is being sent; a digest that is due later is not waited for."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Give up what is not sent yet, and tell how much that was."""
        unsent = len(self._tasks)
        for task in self._tasks:
            task.cancel()
        await self.drain()
        untold = self._over.total()
        if self._digest is not None:
            self._digest.cancel()
        if unsent or untold:
            message = f"{unsent} notifications and a digest of {untold} events were not sent"
            fields = {"event": {"outcome": "failure"}, "aegis": {"dropped": unsent + untold}}
            self._tell("notifications-dropped", message, fields)

    def is_own(self, pid: int, start_boot_ns: int) -> bool:
        """Whether it is a child of ours, or was a moment ago; not who has its number now."""
        now = time.monotonic()
        self._own = {pid: child for pid, child in self._own.items() if child.until > now}
        child = self._own.get(pid)
        return child is not None and child.start_ticks in (None, start_boot_ns // TICK_NS)

    def note(self, pid: int) -> None:
        """It is a child of ours, just started."""
        self._own[pid] = _Child(_start_of(pid))

    def _budget(self, rule: str) -> Budget:
        known = self._by_rule.get(rule)
        if known is None:
            known = Budget(self.settings.rule_limit, self.settings.window)
            self._by_rule[rule] = known
            if len(self._by_rule) > _RULES_MAX:
                self._by_rule.popitem(last=False)
        return known

    def _send_digest(self) -> None:
        """What was over, once a window: neither budget holds it back."""
        over, self._over, self._digest = self._over, Counter(), None
        message = digest_message(over, self.settings.window)
        self._tell("notifications-digested", message.text, {"aegis": {"digested": over.total()}})
        self._send(message)

    def _send(self, message: Message) -> None:
        task = asyncio.create_task(self._deliver(message))
        self._tasks.add(task)
        task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None:  # a defect must not pass in silence
                self._on_defect(error)

    async def _deliver(self, message: Message) -> None:
        """Send to every target, and to those that failed again, later and later."""
        left: dict[str, str] = {}  # target → why it failed
        tried = False
        for delay in (0.0, *BACKOFF_S):
            await asyncio.sleep(delay)
            try:
                targets = self._targets()
            except (AegisError, OSError, ValueError) as error:
                self._failed("", f"{self.settings.urls_file}: {error}")
                return
            wanted = [target for target in targets if not tried or target.key in left]
            if tried:
                self.outcomes["retried"] += len(wanted)
            left = await self._try(message, wanted)
            tried = True
            if not left:
                return
        for target in wanted:
            if target.key in left:
                self._failed(_label(self.settings, target), left[target.key])

    async def _try(self, message: Message, targets: list[Target]) -> dict[str, str]:
        """Return those of *targets* that failed, and why.

        Those that failed when they were last asked have a place of their own: one that
        hangs keeps it for seconds, each time, from nobody who answers.
        """
        good = [target for target in targets if target.key not in self._suspect]
        suspect = [target for target in targets if target.key in self._suspect]
        asked = await asyncio.gather(
            self._ask_in(self._places, message, good),
            self._ask_in(self._suspect_place, message, suspect),
        )
        return {**asked[0], **asked[1]}

    async def _ask_in(
        self,
        place: asyncio.Semaphore,
        message: Message,
        targets: list[Target],
    ) -> dict[str, str]:
        """In their turn; who failed a moment ago is not asked."""
        if not targets:
            return {}
        async with place:
            now = time.monotonic()
            self._resting = {key: rest for key, rest in self._resting.items() if rest[0] > now}
            resting = {t.key: self._resting[t.key][1] for t in targets if t.key in self._resting}
            asked = [target for target in targets if target.key not in resting]
            failed = await self._ask(message, asked) if asked else {}
        until = time.monotonic() + REST_S
        self._resting |= {key: (until, reason) for key, reason in failed.items()}
        self._suspect = (self._suspect - {t.key for t in asked}) | failed.keys()
        return {**resting, **failed}

    async def _ask(self, message: Message, targets: list[Target]) -> dict[str, str]:
        request = {
            "targets": {target.key: target.url for target in targets},
            "message": message.as_json(),
        }
        pids: list[int] = []

        def started(pid: int, _freeze: object) -> None:
            pids.append(pid)
            self.note(pid)

        order = Order("notify", json.dumps(request).encode(), _ENV, CHILD_S, self.settings.user)
        try:
            result = await self._runner.run(order, started)
        except (ScriptError, OSError) as error:
            return dict.fromkeys((t.key for t in targets), str(error) or "cannot be run")
        finally:
            for pid in pids:
                self._own[pid].until = time.monotonic() + _OWN_S
        answers = _parse_answers(result.output)
        answers = {t.key: answers.get(t.key, "the sender did not finish") for t in targets}
        failed = {key: reason for key, reason in answers.items() if reason}
        self.outcomes["sent"] += len(targets) - len(failed)
        return failed

    def _failed(self, target: str, reason: str) -> None:
        self.outcomes["failed"] += 1
        message = f"notification{target and ' to ' + target} failed: {reason}"
        self._tell("notify-failed", message, {"event": {"outcome": "failure"}})

    def _targets(self) -> tuple[Target, ...]:
        return parse_targets(ROOTS.read(str(self.settings.urls_file), private=True))


def _start_of(pid: int) -> int | None:
    with suppress(OSError):
        return read_stat(pid).start_ticks
    return None


def _label(settings: Notify, target: Target) -> str:
    return f"{settings.urls_file}:{target.line} ({target.scheme})"


def _parse_answers(output: bytes) -> dict[str, str]:
    """One a line; the last may be cut."""
    answers: dict[str, str] = {}
    for line in output.splitlines():
        with suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                answers |= answer
    return answers
