# SPDX-License-Identifier: Apache-2.0
"""``aegis events``: the event log, read, filtered and followed."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from aegis.cli.live import LiveView
from aegis.errors import AegisError
from aegis.events.ecs import Record, to_json_line
from aegis.events.log_file import LOG_PATH, Skipped, follow, read_log
from aegis.policy.model import Verdict

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LAST_LINES = 10


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of ``aegis``."""
    parser = subparsers.add_parser(
        "events",
        help="show the event log",
        description="Show what was reported, oldest first. Without --since: all of the current "
        "log file, or with --follow its last 10 records.",
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
    parser.add_argument(
        "--file", metavar="PATH", type=Path, default=LOG_PATH, help=f"default: {LOG_PATH}"
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


def _records(args: argparse.Namespace, skipped: Skipped) -> Iterator[Record]:
    since = None if args.since is None else time.time() - args.since
    if not args.follow:
        return read_log(args.file, since, skipped)
    if since is None:
        return follow(args.file, skipped, last=_LAST_LINES)
    return follow(args.file, skipped, since=since)


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
