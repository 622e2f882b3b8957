# SPDX-License-Identifier: Apache-2.0
"""``aegis load``: enforcement early at boot, without an agent."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from aegis.bpf.cgroup import instance_name
from aegis.cli.journal import NOTICE, WARNING
from aegis.cli.journal import say as say_line
from aegis.cli.off import stay_off
from aegis.cli.target import add_cgroup_option, chosen_cgroup
from aegis.last_good import LAST_GOOD_PATH
from aegis.loading import load
from aegis.off import why_off

_DESCRIPTION = """\
Put the policy that was last in force into the kernel and end; aegis-load.service
does so before the network comes up. Without a last good policy that can be used,
the files' policy is compiled. What is in force already is left alone.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "load", help="put the last good policy in force, at boot", description=_DESCRIPTION
    )
    # Not config's own default: importing it takes longer than all else here.
    parser.add_argument("-c", "--config", type=Path, default=Path("/etc/aegis.toml"),
                        metavar="FILE",
                        help="the policy's main file (default: %(default)s)")  # fmt: skip
    parser.add_argument("--last-good", type=Path, default=LAST_GOOD_PATH, metavar="FILE",
                        help="where an agent keeps what is in force "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_cgroup_option(parser, "govern only the processes in this cgroup2 directory")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    cgroup, off = chosen_cgroup(args), why_off()
    if off:
        return stay_off(off, instance_name(cgroup), say)
    done = load(cgroup, args.config, args.last_good)
    if args.json:
        print(json.dumps({**asdict(done), "source": str(done.source or "")}))
        return 0
    if not done.generation:
        say("aegis: a policy is in force already: nothing done")
        return 0
    if done.instead:
        say(f"aegis: no last good policy: {done.instead}", WARNING)
    say(f"aegis: in force: generation {done.generation}, mode {done.mode}, from {done.source}")
    if done.unfinished:
        say(f"aegis: what was left to do then failed: {done.unfinished}", WARNING)
    return 0


def say(line: str, priority: int = NOTICE) -> None:
    say_line(line, priority)
