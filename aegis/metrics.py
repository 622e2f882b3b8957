# SPDX-License-Identifier: Apache-2.0
"""Numbers for Prometheus: the text format, in a file for the node exporter to read.

Written by hand: the format is a few lines, and its client library would be one more
thing in a process that must stay small. A test reads it with that library.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from aegis.actions.notice import Tell
from aegis.bpf.balance import balance, holds
from aegis.bpf.kernel import Measures
from aegis.errors import AegisError
from aegis.tasks import until_tick

METRICS_S = 15.0
_COUNTED = {
    "identity_lost": "Executions and forks that were not recorded: the table was full.",
    "identity_missing": "Decisions about processes that were not recorded.",
    "detent_failed": "Reports that detent could not hold back.",
    "broken": "Connections refused because a table was missing.",
}


class Metric(NamedTuple):
    """One metric: name without prefix, kind, help, and values by labels."""

    name: str
    kind: str
    help: str
    values: Iterable[tuple[Mapping[str, str], float]]


class MetricsFile:
    """Written now and then, of what *measure* and *status* say; at once if *due* is set."""

    def __init__(
        self, measure: Callable[[], Measures], status: Callable[[], Mapping[str, Any]], tell: Tell
    ) -> None:
        self._measure = measure
        self._status = status
        self._tell = tell
        self._failed = False
        self.due = asyncio.Event()

    async def write_forever(self, path: Callable[[], str | None]) -> None:
        """Write when it is *due*, every ``METRICS_S`` seconds, to what *path* says then, if any."""
        while True:
            target = path()
            if target is not None:
                self.write(Path(target))
            with suppress(TimeoutError):
                async with asyncio.timeout(until_tick(METRICS_S)):
                    await self.due.wait()
            self.due.clear()

    def write(self, path: Path) -> None:
        """Write once; a failure is told, and told again only after it worked in between."""
        try:
            write_metrics(path, exposition(self._measure(), self._status()))
        except (OSError, AegisError) as error:
            if not self._failed:
                message = f"metrics cannot be written: {path}: {error}"
                self._tell("metrics-failed", message, {"event": {"outcome": "failure"}})
            self._failed = True
        else:
            if self._failed:
                self._tell("metrics-restored", f"metrics are written again: {path}", {})
            self._failed = False


def exposition(measures: Measures, status: Mapping[str, Any]) -> str:
    """Return the text of all metrics; *status* is what the agent answers when asked for it."""
    return "".join(map(_text, [*_of_kernel(measures), *_of_agent(status)]))


def write_metrics(path: Path, text: str) -> None:
    """Put *text* at *path* in one step: a reader sees the old or the new, whole.

    :raises OSError: when it cannot be written; what was there stays
    """
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(fresh, flags, 0o644)
    try:
        with os.fdopen(fd, "w") as file:
            os.fchmod(fd, 0o644)  # whatever the umask: the exporter is another user
            file.write(text)
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _of_kernel(measures: Measures) -> Iterator[Metric]:
    counters, history = measures.counters, measures.history
    yield _counter("decided", "Decisions of the kernel.", counters["decided"])
    by_verdict = {name: counters[name] for name in ("allowed", "blocked", "would_block")}
    yield _by("decisions", "verdict", "Decisions by verdict.", by_verdict)
    by_outcome = {name: counters[name] for name in ("emitted", "suppressed", "lost", "quiet")}
    yield _by("outcomes", "outcome", "Decisions by what became of the report.", by_outcome)
    for name, text in _COUNTED.items():
        yield _counter(name, text, counters[name])
    yield _counter("history_taken", "Decisions kept in the history file.", history["taken"])
    yield _gauge("history_pending", "Decisions in the kernel's sums only.", history["pending"])
    text = "Decisions that are not in history: the kernel's table was full."
    yield _counter("history_lost", text, counters["history_lost"])
    text = "Decisions in history without their destination: the kernel's table was full."
    yield _counter("history_folded", text, counters["history_folded"])
    laws = {
        law: float(holds(counters["decided"], accounted, measures.moved))
        for law, accounted in balance(counters, history).items()
    }
    text = "1 while every decision is accounted for."
    yield Metric("balanced", "gauge", text, _labelled("law", laws))
    used = {name: float(entries) for name, (entries, _) in measures.fill.items()}
    room = {name: float(most) for name, (_, most) in measures.fill.items()}
    yield Metric("map_entries", "gauge", "Entries of a kernel table.", _labelled("map", used))
    yield Metric("map_max_entries", "gauge", "Its room.", _labelled("map", room))
    yield _gauge("ring_bytes", "Bytes of events waiting to be read.", measures.ring[0])
    yield _gauge("ring_max_bytes", "Room for events.", measures.ring[1])


def _of_agent(status: Mapping[str, Any]) -> Iterator[Metric]:
    log = status["log"]
    lines = {"written": log["written"], "lost": log["lost"]}
    yield _by("log_lines", "outcome", "Lines of the event log.", lines)
    text = "Lines that nobody took from standard output or error."
    yield _counter("output_lost", text, status["output"]["lost"])
    failing = {name: bool(status[name]["error"]) for name in ("log", "history", "output")}
    text = "1 while a file cannot be written."
    yield Metric("failing", "gauge", text, _labelled("file", failing))
    yield _by("scripts", "outcome", "Runs of hook scripts.", status["scripts"])
    yield _by("notifications", "outcome", "Notifications.", status["notifications"])
    text = "Processes to be killed, by what became of it."
    yield _by("kills", "outcome", text, status["kills"])
    text = "Reactions to an event that failed by a defect of Aegis."
    yield _counter("reactions_failed", text, status["defects"])
    mode = ({"mode": status["mode"]}, 1.0)
    yield Metric("policy_info", "gauge", "The mode in force.", [mode])
    yield _gauge("policy_generation", "Number of the policy in force.", status["generation"])
    yield _gauge("policy_rules", "Its rules.", status["rules"])
    yield _gauge("policy_age_seconds", "Since it was put in force.", status["policy_age_s"])
    text = "1 if the last reload, or the start, put its policy in force."
    yield _gauge("last_reload_ok", text, status["last_reload_ok"])
    yield _gauge("agent_uptime_seconds", "Since the agent was started.", status["uptime_s"])


def _counter(name: str, text: str, value: float) -> Metric:
    return Metric(f"{name}_total", "counter", text, [({}, value)])


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(name, "gauge", text, [({}, float(value))])


def _by(name: str, label: str, text: str, values: Mapping[str, float]) -> Metric:
    return Metric(f"{name}_total", "counter", text, _labelled(label, values))


def _labelled(label: str, values: Mapping[str, float]) -> list[tuple[Mapping[str, str], float]]:
    return [({label: name}, float(value)) for name, value in values.items()]


def _text(metric: Metric) -> str:
    name = f"aegis_{metric.name}"
    lines = [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
    for labels, value in metric.values:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value:.17g}" if inside else f"{name} {value:.17g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
