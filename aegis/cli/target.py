# SPDX-License-Identifier: Apache-2.0
"""Which instance a command is about: ``--cgroup DIR``, or the one there is."""

import argparse
from pathlib import Path

from aegis import control
from aegis.bpf.cgroup import cgroup2_mount, instance_name
from aegis.bpf.pins import instances
from aegis.errors import ControlError


def add_cgroup_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--cgroup", type=Path, metavar="DIR", help=f"{what} (default: all of it)")


def chosen_cgroup(args: argparse.Namespace) -> Path:
    return args.cgroup or cgroup2_mount()


def present() -> list[str]:
    """Every instance with an agent or with something in the kernel."""
    return sorted({*instances(), *control.running()})


def chosen_instance(args: argparse.Namespace) -> str:
    """The instance of ``--cgroup``; without it the root's, else the only one.

    :raises ControlError: when it is not clear which is meant.
    """
    if args.cgroup is not None:
        return instance_name(args.cgroup)
    known = present()
    if len(known) > 1 and "root" not in known:
        raise ControlError(f"several agents: say --cgroup DIR (there are {', '.join(known)})")
    return known[0] if len(known) == 1 else "root"
