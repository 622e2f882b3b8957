# SPDX-License-Identifier: Apache-2.0
"""``aegis confirm``: the policy on trial stays."""

import argparse
import json
from typing import Any

from aegis import control
from aegis.bpf.pins import Pins
from aegis.bpf.trial import confirm_pinned
from aegis.cli.target import add_cgroup_option, chosen_instance
from aegis.confirming import note_of
from aegis.errors import ControlError
from aegis.events.text import printable

_DESCRIPTION = """\
Have the policy that `aegis apply` put in force on trial stay, or take it back at
once. It stays until the agent reads its own files again: what came from another
file must be put there to last.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "confirm", help="have the policy on trial stay", description=_DESCRIPTION
    )
    parser.add_argument("--no", action="store_true", help="take it back at once")
    add_cgroup_option(parser, "the agent of this cgroup2 directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    instance = chosen_instance(args)
    if instance not in control.running():
        reply = _without_agent(instance, no=args.no)
    else:
        reply = control.ask(instance, "give-back" if args.no else "confirm")
    if args.json:
        print(json.dumps(reply))
    elif args.no:
        print(f"taken back: generation {reply['generation']}")
    else:
        print(f"confirmed: generation {reply['generation']}")
        if not reply["lasts"]:
            config = printable(reply["config"])
            print(f"it lasts until the next reload or start: {config} holds another policy")
    return 0


def _without_agent(instance: str, *, no: bool) -> dict[str, Any]:
    if no:
        raise ControlError("no agent is running to take it back at once; the kernel will in time")
    generation = confirm_pinned(Pins(instance))
    note_of(instance).remove()
    return {"generation": generation, "lasts": False, "config": "what the agent starts from"}
