# SPDX-License-Identifier: Apache-2.0
"""``aegis events``: the event log and history, read, filtered and followed."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from aegis import control
from aegis.cli.live import LiveView, summary_line
from aegis.errors import AegisError, ControlError
from aegis.events.ecs import Record, to_json_line
from aegis.events.fact_ecs import Told, to_ecs_fact
from aegis.events.facts import Fact
from aegis.events.history import HISTORY_PATH, History
from aegis.events.log_file import LOG_PATH, Skipped, follow, read_log
from aegis.policy.model import Verdict

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LAST_LINES = 10


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of ``aegis``."""
    parser = subparsers.add_parser(
        "events",
        help="show the event log and history",
        description="Show what was reported, oldest first, and then what history knows of in the "
        "same time and no record of the log tells; with --follow then what is new. "
        "Without --since: all of the current log file, or with --follow its last 10 records.",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, until Ctrl-C")
    parser.add_argument(
        "--since",
        metavar="AGE",
        type=parse_age,
        help="only the last AGE, such as 90s, 15m, 24h, 1d12h; reads rotated files as needed",
    )
    parser.add_argument(
        "--exe", metavar="E", help="only this program: base name or full path of the executable"
    )
    parser.add_argument(
        "--verdict", action="append", choices=[v.value for v in Verdict], help="may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--file", metavar="PATH", type=Path, help=f"the log (default: {LOG_PATH})")
    parser.add_argument(
        "--summary",
        action="store_true",
        help="history alone: each program, destination and verdict, what is quiet too",
    )
    parser.add_argument(
        "--history",
        metavar="PATH",
        type=Path,
        help=f"default: {HISTORY_PATH}, or none if --file is given",
    )
    parser.set_defaults(run=run)


def parse_age(text: str) -> float:
    """Return the seconds *text* means: ``1h``, ``1d12h``, ``90`` (seconds)."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        return float(text)
    if not re.fullmatch(r"(\d+[smhdw])+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 15m, 24h or 1d12h")
    return float(sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhdw])", text)))


def run(args: argparse.Namespace) -> int:
    """Print the records asked for; 0, or 141 if the reader of our output went away.

    :raises AegisError: if the log cannot be read
    """
    skipped = Skipped()
    show = _show_json if args.json else LiveView(sys.stdout).show
    try:
        if args.summary:
            _summarise(args)
        else:
            for record in _chosen(_records(args, skipped), args.exe, args.verdict):
                show(record)
        sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        return _stop_writing()
    except OSError as error:
        raise AegisError(f"{error.filename or args.file}: {error.strerror}") from None
    if skipped.lines:
        print(f"aegis events: {skipped.lines} damaged lines left out", file=sys.stderr)
    return 0


def _since(args: argparse.Namespace) -> float | None:
    return None if args.since is None else time.time() - args.since


def _records(args: argparse.Namespace, skipped: Skipped) -> Iterator[Record]:
    since, log = _since(args), args.file or LOG_PATH
    told = Told()

    def untold() -> Iterator[Record]:
        if args.history is None and (args.file is not None or not HISTORY_PATH.exists()):
            return iter(())
        return told.missing(_facts(args, told.since if since is None else since))

    if args.follow:
        last = _LAST_LINES if since is None else None
        yield from told.watch(follow(log, skipped, since=since, last=last, between=untold))
    yield from told.watch(read_log(log, since, skipped))
    yield from untold()


def _facts(args: argparse.Namespace, since: float | None) -> Iterator[Fact]:
    """What history knows, up to this moment if the agent that keeps it runs."""
    path = args.history or HISTORY_PATH
    for instance in control.running():
        with suppress(ControlError):
            control.ask(instance, "record")
    with closing(History(path, read_only=True)) as history:
        yield from history.facts(since)


def _summarise(args: argparse.Namespace) -> None:
    for fact in _facts(args, _since(args)):
        record = to_ecs_fact(fact)
        if not any(_chosen([record], args.exe, args.verdict)):
            continue
        if args.json:
            _show_json(record)
        else:
            print(summary_line(record))


def _chosen(
    records: Iterable[Record], exe: str | None, verdicts: list[str] | None
) -> Iterator[Record]:
    """Yield what the filters let through; asked for a verdict, no notice has one."""
    wanted: list[Callable[[Record], bool]] = []
    if exe is not None:
        key = "executable" if "/" in exe else "name"
        wanted.append(lambda record: _of(record, "process").get(key) == exe)
    if verdicts is not None:
        wanted.append(lambda record: _of(record, "aegis").get("verdict") in verdicts)
    return (record for record in records if all(test(record) for test in wanted))


def _of(record: Record, name: str) -> Record:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _show_json(record: Record) -> None:
    sys.stdout.write(to_json_line(record) + "\n")
    sys.stdout.flush()


def _stop_writing() -> int:
    # Or Python complains once more when it flushes stdout at exit.
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return 141
