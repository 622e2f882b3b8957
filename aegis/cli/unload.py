# SPDX-License-Identifier: Apache-2.0
"""``aegis unload``: nothing of ours stays in the kernel."""

import argparse
import contextlib
import json
import time

from aegis import control
from aegis.bpf.cgroup import instance_name
from aegis.bpf.pins import all_pins
from aegis.cli.target import add_cgroup_option, present
from aegis.errors import ControlError

STOP_S = 30.0
ANSWER_S = 5.0
_DESCRIPTION = """\
Stop the agent, if one runs, and take every program, link, map and pin of Aegis
out of the kernel. Connections are no longer checked afterwards.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "unload", help="take everything out of the kernel", description=_DESCRIPTION
    )
    add_cgroup_option(parser, "only what governs this cgroup2 directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    wanted = present() if args.cgroup is None else [instance_name(args.cgroup)]
    removed, failed = {}, None
    for instance in wanted:
        try:
            stop_agent(instance)
        except ControlError as error:
            failed = error  # what is in force goes all the same
        removed[instance] = sum(pins.remove() for pins in all_pins(instance))
    if args.json:
        print(json.dumps({"removed": removed}))
    elif not any(removed.values()):
        print("nothing of Aegis was in the kernel")
    else:
        for instance, count in removed.items():
            print(f"{instance}: {count} links and maps removed")
    if failed is not None:
        raise failed
    return 0


def stop_agent(instance: str) -> None:
    """Return once no agent of *instance* runs, also one that is only just starting.

    :raises ControlError: when it does not end.
    """
    deadline = time.monotonic() + STOP_S
    while instance in control.running():
        if time.monotonic() > deadline:
            raise ControlError(
                f"the agent of {instance} does not stop, and may put its policy in force again: "
                "end it, then unload again"
            )
        with contextlib.suppress(ControlError):  # it is starting, stopping, or hangs
            control.ask(instance, "stop", ANSWER_S)
        time.sleep(0.02)
