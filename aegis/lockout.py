# SPDX-License-Identifier: Apache-2.0
"""Whether a policy would lock somebody out: the reference judges what the host lives by."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from aegis.bpf.tiers import LSM
from aegis.errors import LockOutError
from aegis.lifelines import SOMEWHERE, Host, Lifeline, find_lifelines
from aegis.names import resolve
from aegis.parts import Parts
from aegis.policy.decide import decide
from aegis.policy.model import Address, Decision, Mode, Policy, Reason, Resolution, Verdict

RESOLVE_S = 2.0
_SHOWN = 12


def reasons(
    policy: Policy, resolution: Resolution, lifelines: Iterable[Lifeline]
) -> tuple[str, ...]:
    """Return what *policy* would cut, a line each; empty: nothing of it."""
    found: dict[str, None] = {}
    for lifeline in lifelines:
        meant = resolution
        if lifeline.host is not None:
            # Servers of one name take turns: the one that was found stands for all.
            held = resolution.names.get(lifeline.host, frozenset()) | {lifeline.flow.address}
            meant = replace(resolution, names={**resolution.names, lifeline.host: held})
        decision = decide(policy, meant, lifeline.identity, lifeline.flow)
        if decision.verdict is Verdict.BLOCKED:
            found.setdefault(f"{lifeline.what}: refused by {_by(decision)}")
    return tuple(found)


def _by(decision: Decision) -> str:
    if decision.reason is Reason.RULE_DENIES:
        return f"the rule at {decision.where}"
    untrusted = decision.reason is Reason.UNTRUSTED
    return "unconfigured_actions" + (", since its file is not root's alone" if untrusted else "")


async def check(parts: Parts, policy: Policy, resolution: Resolution) -> None:
    """Return if *policy*, about to be put in force, cuts nothing the host lives by.

    :raises LockOutError: with the reasons.
    """
    if policy.settings.mode is not Mode.ENFORCE:
        return
    found = reasons(policy, resolution, await _lifelines(parts))
    if found:
        lines = [f"  {line}" for line in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN} more")
        raise LockOutError("\n".join(["this policy would lock you out:", *lines]))


async def _lifelines(parts: Parts) -> list[Lifeline]:
    kernel = parts.kernel
    packets = any(tier.active for tier in kernel.tiers if tier.name == LSM)
    host = Host(whole=kernel.instance == "root", packets=packets)
    found = await asyncio.to_thread(
        lambda: list(find_lifelines(kernel.object, host, kernel.cgroup))
    )
    names = dict.fromkeys(lifeline.host for lifeline in found if lifeline.host is not None)
    answers = await asyncio.gather(*(resolve(name, RESOLVE_S) for name in names))
    known = {
        name: min(answer.addresses, key=str)
        for name, answer in zip(names, answers, strict=True)
        if answer.addresses
    }
    return [_at(lifeline, known) for lifeline in found]


def _at(lifeline: Lifeline, known: Mapping[str, Address]) -> Lifeline:
    if lifeline.host is None:
        return lifeline
    address = known.get(lifeline.host, SOMEWHERE)
    return replace(lifeline, flow=replace(lifeline.flow, address=address))
