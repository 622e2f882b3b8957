# SPDX-License-Identifier: Apache-2.0
"""``aegis broker``: what systemd starts when the agent asks for a reaction."""

import argparse
import sys

from aegis.broker.serve import serve_socket
from aegis.cli.journal import WARNING, prefixed
from aegis.events.text import printable
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
    print(prefixed(printable(line), WARNING, sys.stderr), file=sys.stderr, flush=True)
