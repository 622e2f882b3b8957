# SPDX-License-Identifier: Apache-2.0
"""The command line: ``aegis COMMAND``, or ``aegis -c FILE`` for ``aegis run``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from aegis import __version__
from aegis.cli.journal import ERROR, say
from aegis.errors import AegisError, said_of

COMMANDS = (
    *("run", "load", "check", "explain", "status", "reload", "apply", "confirm", "unload"),
    *("events", "broker"),
)

_DESCRIPTION = """\
Watches which program opens which connection, compares it with a policy, and
logs, notifies, runs scripts, blocks or kills. `aegis -c FILE` is the same as
`aegis run -c FILE`.
"""


def make_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of these commands; the daemon imports no other's modules."""
    parser = argparse.ArgumentParser(
        prog="aegis", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"aegis {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        import_module(f"aegis.cli.{name}").add_parser(subparsers)
    return parser


def _say_unraisable(what: "sys.UnraisableHookArgs") -> None:
    """What fails while something is cleaned up: one line, too."""
    error = what.exc_value or what.exc_type()
    _say(f"aegis: while cleaning up: {said_of(error)}")


def _is_the_systems(error: RuntimeError) -> bool:
    """Whether it is how Python says that the system has no thread, or a signal's pipe failed."""
    return "start new thread" in str(error) or isinstance(error.__context__, OSError)


def _say(line: str) -> None:
    say(line, ERROR)


def _leave_out(words: Sequence[str]) -> None:
    """Keep OpenSSL out of who runs all the time: 5 MiB, 10 ms of a start, and what it can do.

    asyncio and hashlib take it where it is, and do without where it is not. Senders of
    notifications are programs of their own.
    """
    if words[:1] in (["run"], ["broker"]):
        for name in ("ssl", "_hashlib"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: there is none


def _opener(words: Sequence[str]) -> object:
    """Who starts brokers, if we are to be an agent without systemd. Before all else is
    imported: what it has then, it has for as long as the agent runs.
    """
    if words[:1] != ["run"] or "--units" in words:
        return None
    from aegis.broker.starter import Starter  # noqa: PLC0415

    return Starter(_say)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 usage."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        words = ["run", *words]
    sys.unraisablehook = _say_unraisable
    known = words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS
    try:
        _leave_out(words)
        opener = _opener(words)
        arguments = make_parser(known).parse_args(words)
        arguments.opener = opener
        code: int = arguments.run(arguments)
    except AegisError as error:
        for line in str(error).splitlines():
            _say(f"aegis: {line}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter complains again while it ends
        return 1
    except (OSError, ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_the_systems(error):
            raise  # a defect
        _say(f"aegis: the system failed us: {said_of(error)}")
        return 1
    return code
