# SPDX-License-Identifier: Apache-2.0
"""``aegis run``: the agent in the foreground, with a live view."""

import argparse
from pathlib import Path

from aegis.bpf.cgroup import instance_name
from aegis.bpf.kernel import Kernel
from aegis.cli.target import add_cgroup_option, chosen_cgroup
from aegis.config.files import MAIN_FILE
from aegis.events.history import HISTORY_PATH
from aegis.events.log_file import LOG_PATH
from aegis.last_good import LAST_GOOD_PATH
from aegis.off import why_off
from aegis.policy.model import Mode

_DESCRIPTION = """\
Put the policy in force and print events until Ctrl-C or SIGTERM. Stopping is
not unloading: what was enforced stays in force until `aegis unload`, unless
--unload-on-exit is given. SIGHUP reloads the policy.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "run",
        help="put a policy in force and watch",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", type=Path, default=MAIN_FILE, metavar="FILE",
                        help="the policy's main file (default: %(default)s)")  # fmt: skip
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--observe", action="store_const", dest="mode", const=Mode.OBSERVE,
                      help="block and kill nothing, whatever the policy says")  # fmt: skip
    mode.add_argument("--enforce", action="store_const", dest="mode", const=Mode.ENFORCE,
                      help="block and kill, whatever the policy says")  # fmt: skip
    add_cgroup_option(parser, "govern only the processes in this cgroup2 directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--log", type=Path, default=LOG_PATH, metavar="FILE",
                        help="event log (default: %(default)s)")  # fmt: skip
    parser.add_argument("--history", type=Path, default=HISTORY_PATH, metavar="FILE",
                        help="sums of all decisions (default: %(default)s)")  # fmt: skip
    parser.add_argument("--last-good", type=Path, metavar="FILE",
                        help="where to keep what is in force, for the next boot (default: "
                        f"{LAST_GOOD_PATH}; with --cgroup: nowhere)")  # fmt: skip
    parser.add_argument("--unload-on-exit", action="store_true",
                        help="take everything out of the kernel when stopping")  # fmt: skip
    parser.add_argument("--units", action="store_true",
                        help="have reactions done by the units of the package, not by processes "
                        "of its own (as its service does)")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    cgroup = chosen_cgroup(args)
    off = why_off()
    if off:
        from aegis.cli.off import stay_off  # noqa: PLC0415
        from aegis.cli.output import say  # noqa: PLC0415

        return stay_off(off, instance_name(cgroup), say)
    kernel = Kernel(cgroup)
    kernel.load_early()
    # Only now: what an agent consists of is imported while the kernel checks our programs.
    from aegis.broker.units import Units  # noqa: PLC0415
    from aegis.cli.running import run_agent  # noqa: PLC0415

    return run_agent(args, kernel, Units() if args.units else args.opener)
