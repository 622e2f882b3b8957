# SPDX-License-Identifier: Apache-2.0
"""What a tour (vmtests/system) must find: each step, each fact of it, and nothing missing."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]

EXPOSURE = 2.0
NOBODY = " ".join(["65534"] * 4)
NO_RIGHTS = "0" * 16


def is_(wanted: object) -> Check:
    return lambda got: bool(got == wanted)


def fine(got: Any) -> bool:
    """A command that succeeded: ``run`` puts its exit code first."""
    return str(got).startswith("0:")


def fails(got: Any) -> bool:
    return re.match(r"-?\d+:", str(got)) is not None and not fine(got)


def fine_with(words: str) -> Check:
    return lambda got: fine(got) and words in got


def refused_as(words: str) -> Check:
    return lambda got: fails(got) and words in got


def holding(*words: str) -> Check:
    return lambda got: all(word in str(got) for word in words)


def only_denied(got: Any) -> bool:
    """Of a prober that tried all the while, and did try."""
    return isinstance(got, Mapping) and set(got) == {"denied"} and got["denied"] > 0


def refused(got: Any) -> bool:
    """Every deed of ``deeds``."""
    return isinstance(got, Mapping) and bool(got) and set(got.values()) == {"EPERM"}


def changed(got: Any) -> bool:
    before, _, after = str(got).partition(" -> ")
    return before != after and after.isdigit()


def nobody_without_rights(got: Any) -> bool:
    wanted = {"Uid": NOBODY, "CapEff": NO_RIGHTS, "CapBnd": NO_RIGHTS, "NoNewPrivs": "1"}
    return isinstance(got, Mapping) and all(
        got.get(name) == value for name, value in wanted.items()
    )


def least_rights(got: Any) -> bool:
    """Neither the agent nor hooks have anything, and kill ran."""
    if not isinstance(got, Mapping) or "aegis-kill.service" not in got:
        return False
    hooks = [str(rights) for unit, rights in got.items() if unit.startswith("aegis-hooks@")]
    nothing = [
        f"CapPrm={NO_RIGHTS}" in rights and f"CapBnd={NO_RIGHTS}" in rights for rights in hooks
    ]
    agent = str(got.get("aegis.service"))
    has_none = f"CapEff={NO_RIGHTS}" in agent and f"CapPrm={NO_RIGHTS}" in agent
    return has_none and bool(hooks) and all(nothing)


def low(got: Any) -> bool:
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", str(got))
    return found is not None and float(found[1]) <= EXPOSURE


def no_unit_runs(got: Any) -> bool:
    return fine(got) and " active " not in got and " failed " not in got


REACTIONS: dict[str, dict[str, Check]] = {
    "the_notification": {
        "refused": is_("denied"), "came": is_(True), "sender": nobody_without_rights,
        "body": holding('"port": 9'),
    },
    "the_mail": {"came": is_(True), "text": holding("[aegis] blocked", "10.0.2.2")},
    "the_kill": {"reload": fine, "ended": is_(-9), "rights": least_rights},
    "the_cut": {"came": is_(True), "table": fine_with("aegis_isolate"), "undone": fine},
    "exposures": {
        f"{unit}.service": low
        for unit in ("aegis", "aegis-load", "aegis-kill", "aegis-sever", "aegis-names",
                     "aegis-paths", "aegis-attach", "aegis-hooks@0", "aegis-hooks@65534")
    },
    "the_removal": {
        "dpkg -r": fine_with("links and maps removed"), "pins": is_(False),
        "got": is_({"prober": "open"}), "units": no_unit_runs, "dpkg -P": fine, "left": is_([]),
    },
}  # fmt: skip
PACKAGE = REACTIONS | {
    "the_log": {
        "written": is_(True), "events.jsonl": is_("0640 root:adm"), "adm reads it": fine,
        "directory": is_("2750 root:adm"), "others do not": fails, "logrotate": fine,
        "moved": holding("'events.jsonl.1'"), "written anew": is_(True), "not the old": is_(True),
        "new events.jsonl": is_("0640 root:adm"), "the same agent": is_(True),
    },
    "the_journal": {"BLOCKED at priority 4": bool, "ALLOWED at priority 6": bool},
    "the_unit": {
        "reload": fine, "generations": changed, "reload of a broken policy": fails,
        "the same agent": is_(True), "restart": fine, "another agent": is_(True), "stop": fine,
        "status": fails, "start": fine, "meanwhile": only_denied,
    },
    "the_way_out": {
        "unload": fine, "got": is_("open"), "stays off": is_(True), "start": fine,
        "not started anew": is_(True), "got then": is_("denied"),
    },
    "the_upgrade": {
        "dpkg": fine, "active": is_(True), "another agent": is_(True), "meanwhile": only_denied,
    },
}  # fmt: skip
GUARD: dict[str, dict[str, Check]] = {
    "the_guard": {
        "check": fine, "restart": fine, "state": holding("'active': True"), "deeds": refused,
        "in its cgroup": fine_with("refused"), "others": fine, "reload": fine,
        "in its cgroup, executed there": fine_with("refused"),
    },
    "its_life": {
        "crash": fine, "chmod after it": is_("EPERM"), "another agent": is_(True),
        "deeds": refused, "stop": fine, "chmod when stopped": is_("done"), "start": fine,
        "dpkg": fine, "upgraded": is_(True), "chmod": is_("EPERM"), "unload": fine,
        "pins": is_(False),
    },
    "the_way_out": {
        "stays unloaded": is_(True), "start": fine, "started again": is_(True),
        "lost": is_(True), "status": refused_as("tamper_guard"),
        "unload": refused_as("start aegis-unload"), "a unit of another name": fails,
        "pins then": is_(True), "start aegis-unload": fine, "pins": is_(False), "got": is_("open"),
    },
    "the_end": {
        "start": fine, "guarded again": is_(True), "lost": is_(True), "dpkg -r": fine,
        "pins": is_(False), "got": is_("open"),
    },
}  # fmt: skip
# Its steps say themselves what is wrong.
SUSPEND: dict[str, dict[str, Check]] = {
    name: {"wrong": is_([])} for name in ("detent", "trial over", "trial lasts", "script", "agent")
}
NAP = {name: SUSPEND[name] for name in ("detent", "agent")}
BEGIN: dict[str, Check] = {"check": fine, "reload": fine}
TOURS = {
    "package": PACKAGE, "reactions": REACTIONS, "guard": GUARD, "suspend": SUSPEND, "nap": NAP,
}  # fmt: skip


def judge(name: str, told: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many steps tour *name* has, and what is wrong with what it *told*."""
    wrong = [str(told["error"])] if "error" in told else []
    found, steps = told.get("tour", {}), TOURS[name]
    wrong += [
        f"{key}: {found.get(key)}" for key, holds in BEGIN.items() if not holds(found.get(key))
    ]
    for step, checks in steps.items():
        got = found.get(step)
        if not isinstance(got, Mapping):
            wrong.append(f"{step}: {got or 'not done'}")
            continue
        wrong += [
            f"{step}: {fact}: {got.get(fact)!r}"
            for fact, holds in checks.items()
            if fact not in got or not holds(got[fact])
        ]
    return len(steps), wrong
