# SPDX-License-Identifier: Apache-2.0
"""``aegis check``: what is wrong with a policy, before it is in force."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aegis.cli.check_names import check_names
from aegis.config.files import MAIN_FILE
from aegis.config.lint import lint
from aegis.config.lint_rule import describe
from aegis.config.load import Loaded, load_lone, load_policy
from aegis.config.problem import PolicyError, Problem, Severity, in_order
from aegis.config.schema import json_schema
from aegis.errors import AegisError
from aegis.events.text import printable
from aegis.policy.compile import compile_policy
from aegis.policy.model import Resolution, Where

_DESCRIPTION = """\
Check a policy without putting it in force: every error and every doubt of every
file, each with file:line:column and what to write instead.

Without FILE, the main file and all its drop-ins are checked as the agent would
read them, owners and modes included. Each FILE is checked alone, whoever owns
it, as a drop-in of any name: that needs neither root nor a kernel.

Names in rules are looked up, for two seconds at most; --offline asks nobody.
"""
_EPILOG = """\
exit status:
  0  the policy may be used, perhaps with warnings
  1  it may not: there are errors
  2  wrong usage

examples:
  aegis check                      the policy of this host
  aegis check zz-telegraf.toml     one drop-in, before it is copied to /etc/aegis.d
  aegis check --json | jq .errors
"""


@dataclass(frozen=True)
class Result:
    """What checking came to; *loaded* holds one policy for each that may be used."""

    problems: tuple[Problem, ...]
    loaded: tuple[Loaded, ...]

    def of(self, severity: Severity) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity is severity]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to ``aegis``."""
    parser = subparsers.add_parser(
        "check",
        help="check a policy: errors, warnings, what was skipped or replaced",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path, help="check it alone")
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=MAIN_FILE,
        metavar="FILE",
        help="the main file, checked with its drop-ins (default: %(default)s)",
    )
    parser.add_argument("--offline", action="store_true", help="look no names up")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of a policy file, for editors"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print, and return the exit status."""
    if args.schema:
        print(json.dumps(json_schema(), indent=2))
        return 0
    result = check(args.files, args.config, offline=args.offline)
    if args.json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        _print_text(result)
    return 1 if result.of(Severity.ERROR) else 0


def check(files: list[Path], config: Path, *, offline: bool) -> Result:
    """Check each of *files* alone; without any, the policy whose main file is *config*."""
    problems: list[Problem] = []
    usable: list[Loaded] = []
    for file in files or (None,):
        try:
            loaded = load_lone(file) if file else load_policy(config)
        except PolicyError as error:
            problems += error.problems
        else:
            usable.append(loaded)
            problems += too_large(loaded)
            names = () if offline else check_names(loaded.policy)
            warnings = (*lint(loaded), *cannot_guard(loaded))
            problems += in_order((*loaded.warnings, *warnings, *names))
    return Result(tuple(problems), tuple(usable))


def too_large(loaded: Loaded) -> Iterator[Problem]:
    """What only the tables tell: the agent would refuse a policy they cannot hold."""
    try:
        compile_policy(loaded.policy, Resolution())
    except AegisError as error:
        yield Problem(Severity.ERROR, Where(loaded.files[0], 1), "", str(error))


def cannot_guard(loaded: Loaded) -> Iterator[Problem]:
    """The policy may be for another host, so it is no error."""
    if not loaded.policy.settings.tamper_guard:
        return
    from aegis.bpf.tiers import lacking_lsm  # noqa: PLC0415  # seldom needed, and slow

    lacking = lacking_lsm()
    if lacking:
        message = f"cannot be carried out on this host: {lacking}"
        where = loaded.settings_places["tamper_guard"]
        yield Problem(Severity.WARNING, where, "global.tamper_guard", message)


def _as_json(result: Result) -> dict[str, object]:
    errors, warnings = result.of(Severity.ERROR), result.of(Severity.WARNING)
    return {
        "ok": not errors,
        "errors": [problem.as_json() for problem in errors],
        "warnings": [problem.as_json() for problem in warnings],
        "files": [file for loaded in result.loaded for file in loaded.files],
        "rules": sum(len(loaded.policy.rules) for loaded in result.loaded),
        "skipped": [
            {"path": path, "reason": reason}
            for loaded in result.loaded
            for path, reason in loaded.skipped
        ],
        "replaced": [
            {"old": str(gone.old), "new": str(gone.new), "selectors": describe(gone.selectors)}
            for loaded in result.loaded
            for gone in loaded.replaced
        ],
    }


def _print_text(result: Result) -> None:
    for problem in result.problems:
        print(_line(problem))
    for loaded in result.loaded:
        for path, reason in loaded.skipped:
            print(printable(f"{path}: skipped: {reason}"))
    errors, warnings = (len(result.of(severity)) for severity in Severity)
    verdict = _paint("31;1", "error") if errors else _paint("32;1", "ok")
    print(f"{verdict}: {_count(errors, 'error')}, {_count(warnings, 'warning')}", end="")
    if result.loaded:
        files = sum(len(loaded.files) for loaded in result.loaded)
        rules = sum(len(loaded.policy.rules) for loaded in result.loaded)
        print(f"; {_count(rules, 'rule')} in {_count(files, 'file')}", end="")
    print()


def _line(problem: Problem) -> str:
    """``file:line:column: key: message``, marked if it is only a warning."""
    where = problem.where
    place = _paint("1", printable(f"{where.file}:{where.line}:{where.column}"))
    key = printable(problem.key)
    if problem.severity is Severity.WARNING:
        key = _paint("33", "warning") + (f": {key}" if key else "")
    elif key:
        key = _paint("31", key)
    return ": ".join(part for part in (place, key, printable(problem.message)) if part)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _paint(code: str, text: str) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
