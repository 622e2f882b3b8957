# SPDX-License-Identifier: Apache-2.0
"""``aegis apply``: a policy in force for a while, unless somebody confirms it."""

import argparse
import json
from pathlib import Path

from aegis import control
from aegis.cli.target import add_cgroup_option, chosen_instance
from aegis.events.text import printable

_DESCRIPTION = """\
Ask the running agent to put a policy in force on trial. The kernel takes it back
by itself after so many seconds, also if the agent is gone by then, unless
`aegis confirm` comes before. No file is changed.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "apply", help="put a policy in force on trial", description=_DESCRIPTION
    )
    parser.add_argument("--confirm", type=float, default=60.0, metavar="SECONDS",
                        help="until it is taken back (default: 60)")  # fmt: skip
    parser.add_argument("-c", "--config", type=Path, metavar="FILE",
                        help="the policy's main file (default: the agent's own)")  # fmt: skip
    parser.add_argument("--i-know", action="store_true",
                        help="even if it cuts ssh, names, DHCP, time or updates")  # fmt: skip
    add_cgroup_option(parser, "the agent of this cgroup2 directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = "" if args.config is None else str(args.config.absolute())
    reply = control.ask(
        chosen_instance(args), "apply", config=config, seconds=args.confirm, knows=args.i_know
    )
    if args.json:
        print(json.dumps(reply))
        return 0
    for warning in reply["warnings"]:
        print(printable(warning))
    print(f"on trial: generation {reply['generation']}, {reply['rules']} rules")
    print(f"taken back in {args.confirm:g} s, unless: aegis confirm")
    return 0
