# SPDX-License-Identifier: Apache-2.0
"""``aegis status``: what is in force, read from the kernel, and who watches."""

import argparse
import contextlib
import json
from dataclasses import asdict
from typing import Any

from aegis import control
from aegis.bpf.balance import balance, holds
from aegis.bpf.coverage import TRAFFIC, Level
from aegis.bpf.guard import is_pinned, require_aegis
from aegis.bpf.pins import Pins
from aegis.bpf.state import State, read_state
from aegis.bpf.tiers import NAMES
from aegis.cli.target import add_cgroup_option, chosen_instance
from aegis.errors import ControlError, KernelError
from aegis.events.text import printable

_DESCRIPTION = """\
Print what is in force. Exit code 0: everything is as it should be; 1: nothing is
in force, something is missing, or no agent runs (what is in force stays so).
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "status", help="what is in force, and its counters", description=_DESCRIPTION
    )
    add_cgroup_option(parser, "what governs this cgroup2 directory")
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="print what is enforced, what only seen and what not seen",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    instance = chosen_instance(args)
    agent = agent_status(instance)
    try:
        state = find_state(instance)
    except KernelError as error:
        if agent is None:
            raise
        return _say_unreadable(instance, str(error), agent, as_json=args.json)
    problems = list(find_problems(state, agent))
    if args.json:
        coverage = {traffic.name: traffic.level(state.attached).value for traffic in TRAFFIC}
        extra = {"coverage": coverage, "tiers": explain_tiers(state, agent)}
        extra |= {"agent": agent, "problems": problems}
        print(json.dumps({**asdict(state), **extra}))
    elif args.coverage:
        _print_coverage(state, tuple(Level))
        _print_problems(problems)
    else:
        _print_text(state, agent, problems)
    return 1 if problems else 0


def _say_unreadable(instance: str, error: str, agent: dict[str, Any], *, as_json: bool) -> int:
    """A pin is gone, say: then the agent knows what is wrong."""
    problems = [f"what is in force cannot be read: {error}", *_degraded(agent)]
    if as_json:
        told = {"instance": instance, "loaded": None, "agent": agent, "problems": problems}
        print(json.dumps(told))
    else:
        print(f"instance   {instance}")
        _print_problems(problems)
    return 1


def _degraded(agent: dict[str, Any]) -> list[str]:
    return [f"degraded: {line}" for line in agent["degraded"]]


def find_state(instance: str) -> State:
    """Read from the kernel; with tamper_guard, which would tell of us, by the agent.

    :raises KernelError: when it cannot be read.
    """
    if not is_pinned(Pins(instance)):
        return read_state(instance)
    with contextlib.suppress(ControlError):
        return State(**control.ask(instance, "state")["state"])
    require_aegis(Pins(instance))
    return read_state(instance)


def agent_status(instance: str) -> dict[str, Any] | None:
    try:
        return control.ask(instance, "status")
    except ControlError:
        return None


def explain_tiers(state: State, agent: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What not every kernel lets run: whether it is in force, and why not."""
    reasons = agent.get("tiers", {}) if agent is not None else {}
    return {
        name: {
            "active": name in state.tiers,
            "reason": "" if name in state.tiers else reasons.get(name) or "nobody knows why",
        }
        for name in NAMES
    }


def find_problems(state: State, agent: dict[str, Any] | None) -> list[str]:
    """What is wrong, in words; empty when all is well."""
    if not state.loaded:
        return ["nothing is in force"]
    problems = [f"{name} is not attached" for name in state.missing]
    tried = agent.get("tiers", {}) if agent is not None else {}
    problems += [
        f"{name} is gone from the kernel"
        for name, reason in tried.items()
        if not reason and name not in state.tiers
    ]
    counters = state.counters or {}
    for law, accounted in balance(counters, state.history or {}).items():
        if not holds(counters["decided"], accounted, state.moved):
            message = f"{law} do not balance: {counters['decided']} decided, {accounted} accounted"
            problems.append(f"{message} for")
    if counters["broken"]:
        problems.append(f"{counters['broken']} connections were refused for a broken table")
    if agent is not None:
        problems += _degraded(agent)
    if agent is not None and agent["held"]:
        problems.append(agent["held"])
    if agent is not None and agent["existing"]["failed"]:
        failed = agent["existing"]["failed"]
        problems.append(f"{failed} connections older than the agent could not be closed")
    if agent is not None and agent["last_good"]["error"]:
        error = agent["last_good"]["error"]
        problems.append(f"the policy in force is not kept for the next boot: {error}")
    if agent is None:
        problems.append("no agent is running: verdicts stand, but nobody hears of them")
    return problems


def _print_text(state: State, agent: dict[str, Any] | None, problems: list[str]) -> None:
    if state.loaded:
        print(f"instance   {state.instance}")
        print(f"mode       {state.mode}, generation {state.generation}")
    if state.trial_s is not None:
        print(f"on trial   {state.trial_s:.0f} s more, then taken back (aegis confirm keeps it)")
    if agent is not None:
        print(f"agent      PID {agent['pid']}, up {agent['uptime_s']} s, {agent['rules']} rules")
        print(f"policy     {printable(agent['config'])}")
        print(f"existing   {_say_existing(agent['existing'])}")
    for name, value in (state.counters or {}).items():
        print(f"{name.replace('_', ' '):<17}{value:>14,}")
    for name, value in (state.history or {}).items():
        print(f"{'history ' + name:<17}{value:>14,}")
    for name, tier in explain_tiers(state, agent).items() if state.loaded else ():
        print(f"{name:<17}{'active' if tier['active'] else 'not active: ' + tier['reason']}")
    if agent is not None and agent["refused"]:
        print(f"{'tampering refused':<17}{sum(agent['refused'].values()):>14,}")
    _print_problems(problems)
    if state.loaded:
        _print_coverage(state, (Level.SEEN, Level.NOT_SEEN))


def _say_existing(tally: dict[str, int]) -> str:
    """What became of the sockets that were open before the agent."""
    if not tally["done"]:
        return "being judged"
    return (
        f"{tally['sockets']} sockets were open before, {tally['off_the_map']} off the map: "
        f"{tally['severed']} closed, {tally['spared']} spared, {tally['failed']} failed"
    )


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        print(f"problem: {problem}")


def _print_coverage(state: State, levels: tuple[Level, ...]) -> None:
    """By what is attached, whatever the kernel calls itself."""
    for level in levels:
        named = [traffic for traffic in TRAFFIC if traffic.level(state.attached) is level]
        said = level is Level.ENFORCED and state.mode == "observe"
        print(f"{level.value}{' (observe mode: reported, let pass)' if said else ''}:")
        for traffic in named:
            print(f"  {traffic.says}")
        if not named:
            print("  nothing")
