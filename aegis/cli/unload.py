# SPDX-License-Identifier: Apache-2.0
"""``aegis unload``: nothing of ours stays in the kernel."""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from aegis import control
from aegis.actions.notice import tell_nobody
from aegis.bpf.cgroup import instance_name
from aegis.bpf.guard import WAY_OUT, is_pinned
from aegis.bpf.inherit import inherit
from aegis.bpf.maps import Map
from aegis.bpf.object import open_map, read_counters
from aegis.bpf.pins import Pins, all_pins
from aegis.bpf.sums import SUM_MAPS, KernelSums
from aegis.cli.target import add_cgroup_option, present
from aegis.errors import AegisError, ControlError, KernelError, said_of
from aegis.events.history import HISTORY_PATH, History
from aegis.recording import Recorder, take_all

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
    parser.add_argument("--history", type=Path, default=HISTORY_PATH, metavar="FILE",
                        help="where, if it exists, what was decided since "
                        "the last agent is kept (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    wanted = present() if args.cgroup is None else [instance_name(args.cgroup)]
    removed, failed = {}, None
    for instance in wanted:
        with contextlib.ExitStack() as lock:
            try:
                stop_agent(instance, lock)
            except ControlError as error:
                failed = error  # what is in force goes all the same
            keep_sums(instance, args.history)
            removed[instance] = remove(instance, args.history)
    control.remove_stale()
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


def remove(instance: str, history: Path) -> int:
    """Take it out of the kernel; return how many links and maps it was.

    :raises KernelError: when the guard of an agent that was not asked to end is in force.
    """
    try:
        keep_others(instance, history)
        return sum(pins.remove() for pins in all_pins(instance))
    except PermissionError:
        if any(is_pinned(pins) for pins in all_pins(instance)):
            raise KernelError(WAY_OUT) from None
        raise


def keep_sums(instance: str, path: Path) -> None:
    """What the kernel added up since the last agent; unloading goes on if that fails."""
    pins = Pins(instance)
    if not pins.exists() or not path.exists():
        return
    maps: dict[str, Map] = {}
    try:
        for name in (*SUM_MAPS, "counters"):
            maps[name] = open_map(name, pins.open(pins.map_path(name)))
        decided = read_counters(maps["counters"].fd)["decided"]
        Recorder(KernelSums(maps), lambda: decided, path, tell_nobody).sweep()
    except (AegisError, OSError) as error:
        print(f"aegis unload: not in history: {error}", file=sys.stderr)
    finally:
        for table in maps.values():
            os.close(table.fd)


def keep_others(instance: str, path: Path) -> None:
    """The same of programs of another layout, as far as their sums can be read."""
    for pins in Pins(instance).others() if path.exists() else []:
        one = inherit(pins)
        try:
            with contextlib.closing(History(path)) as history:
                take_all(one, history)
        except (AegisError, OSError) as error:
            print(f"aegis unload: not in history: {error}", file=sys.stderr)
        finally:
            one.close()


def stop_agent(instance: str, lock: contextlib.ExitStack) -> None:
    """Return once no agent of *instance* runs, also one that is only just starting.

    None begins while *lock* is held: it would take over pins that are about to go.

    :raises ControlError: when it does not end.
    """
    deadline = time.monotonic() + STOP_S
    while instance in control.running() or not _is_locked(instance, lock):
        if time.monotonic() > deadline:
            raise ControlError(
                f"the agent of {instance} does not stop, and may put its policy in force again: "
                "end it, then unload again"
            )
        with contextlib.suppress(ControlError):  # it is starting, stopping, or hangs
            control.ask(instance, "stop", ANSWER_S)
        time.sleep(0.02)


def _is_locked(instance: str, lock: contextlib.ExitStack) -> bool:
    try:
        lock.enter_context(control.only_one(instance))
    except ControlError:
        return False  # an agent was faster
    except OSError as error:  # no place for a lock: no agent has one either
        print(f"aegis unload: without the lock of {instance}: {said_of(error)}", file=sys.stderr)
    return True
