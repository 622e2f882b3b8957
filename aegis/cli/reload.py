# SPDX-License-Identifier: Apache-2.0
"""``aegis reload``: the running agent reads its policy again."""

import argparse
import json

from aegis import control
from aegis.cli.target import add_cgroup_option, chosen_instance
from aegis.events.text import printable

_DESCRIPTION = """\
Ask the running agent to read its files again and put them in force. When
anything is wrong with them the policy in force stays, the reasons are printed
and the exit code is 1. A policy that goes from observing to enforcing and would
lock you out is refused, too: see `aegis apply`.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("reload", help="read the policy again", description=_DESCRIPTION)
    add_cgroup_option(parser, "the agent of this cgroup2 directory")
    parser.add_argument("--i-know", action="store_true",
                        help="even if it cuts ssh, names, DHCP, time or updates")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    reply = control.ask(chosen_instance(args), "reload", knows=args.i_know)
    if args.json:
        print(json.dumps(reply))
        return 0
    for warning in reply["warnings"]:
        print(printable(warning))
    print(f"reloaded: generation {reply['generation']}, {reply['rules']} rules")
    return 0
