# SPDX-License-Identifier: Apache-2.0
"""``aegis broker``: what systemd starts when the agent asks for a reaction."""

import argparse

from aegis.broker.serve import serve_socket
from aegis.cli.journal import WARNING
from aegis.cli.journal import say as say_line
from aegis.privileges import BROKERS

_DESCRIPTION = """\
Serve the agent on a socket given by systemd: kill processes, close connections, look
names up, or run hook scripts and send notifications. For the units of the package.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "broker", help="one kind of reaction, for the agent", description=_DESCRIPTION
    )
    parser.add_argument("name", choices=sorted(BROKERS), help="which")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    serve_socket(args.name, say)
    return 0


def say(line: str) -> None:
    say_line(line, WARNING)
