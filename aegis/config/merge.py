# SPDX-License-Identifier: Apache-2.0
"""Several files into one policy: settings, whitelist, precedence, replacement."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aegis.config.document import Document
from aegis.config.limits import APPS, ENTRIES, PROGRAMS
from aegis.config.problem import Problems
from aegis.config.rules import Follow, place, resolve_path
from aegis.config.texts import as_actions
from aegis.config.users import check_account
from aegis.config.validate import FileTables
from aegis.policy.killing import refine_kill
from aegis.policy.model import Entry, Mode, Policy, Rule, Selectors, Settings, Where, Whitelist


@dataclass(frozen=True)
class Replacement:
    """Two rules with the same selectors: *old* is gone, *new* is in force."""

    old: Where
    new: Where
    selectors: Selectors


def merge_settings(
    files: Sequence[FileTables], problems: Problems, follow: Follow
) -> tuple[Settings, Mapping[str, Where]]:
    """Return ``[global]`` of all files, the last word winning, and where each key stands."""
    values: dict[str, Any] = {}
    places: dict[str, Where] = {}
    for file in files:
        if file.settings is None:
            continue
        for key in sorted(file.settings.model_fields_set):
            where = file.document.where("global", key)
            if key == "include_dirs" and file.document.drop_in:
                message = "only the main file names directories of drop-ins; move it there"
                problems.error(where, "global.include_dirs", message)
                continue
            value = getattr(file.settings, key)
            if key == "script_user":
                values[key] = check_account(value, where, "global.script_user", problems)
            elif key == "never_kill":
                placed = _place_programs(value, file.document, ("global", key), problems, follow)
                values[key] = tuple(program for program, _ in placed)
            else:
                values[key] = _convert(key, value)
            places[key] = where
    settings = Settings(**values)
    refined = refine_kill(settings.unconfigured_actions, None, settings, tree=settings.kill_tree)
    return replace(settings, unconfigured_actions=refined), places


def _convert(key: str, value: Any) -> Any:
    if key.endswith("_actions"):
        return as_actions(value)
    if key.endswith("_dirs"):
        return tuple(dict.fromkeys(value))
    return Mode(value) if key == "mode" else value


def merge_whitelist(files: Sequence[FileTables], problems: Problems, follow: Follow) -> Whitelist:
    """Return ``[whitelist]`` of all files: lists add up, of a scalar the last is in force."""
    ips: list[Entry] = []
    ports: list[Entry] = []
    programs: list[tuple[str, Where]] = []
    resolvers, where = Whitelist.resolvers, None
    for file in files:
        table, at = file.whitelist, file.document.where
        if table is None:
            continue
        where = where or at("whitelist")
        ips += [place(entry, at("whitelist", "ips", n)) for n, entry in enumerate(table.ips)]
        ports += [place(entry, at("whitelist", "ports", n)) for n, entry in enumerate(table.ports)]
        programs += _place_programs(
            table.programs, file.document, ("whitelist", "programs"), problems, follow
        )
        if "resolvers" in table.model_fields_set:
            resolvers, where = table.resolvers, at("whitelist", "resolvers")
    if len(programs) > PROGRAMS:
        message = f"{len(programs)} programs; the limit is {PROGRAMS}"
        problems.error(programs[PROGRAMS][1], "whitelist.programs", message)
    return Whitelist(tuple(ips), tuple(ports), tuple(programs), resolvers, where)


def _place_programs(
    programs: Iterable[str],
    document: Document,
    key: tuple[str, str],
    problems: Problems,
    follow: Follow,
) -> list[tuple[str, Where]]:
    placed: list[tuple[str, Where]] = []
    for number, program in enumerate(programs):
        where = document.where(*key, number)
        path = "/" in program and resolve_path(program, where, ".".join(key), problems, follow)
        placed.append((path or program, where))
    return placed


def merge_rules(
    rules: Iterable[Rule], problems: Problems
) -> tuple[tuple[Rule, ...], tuple[Replacement, ...]]:
    """Return the rules in force, in ascending precedence, and what they replaced."""
    latest: dict[Selectors, tuple[int, Rule]] = {}
    replaced: list[Replacement] = []
    for position, rule in enumerate(rules):
        if rule.selectors in latest:
            old = latest[rule.selectors][1]
            replaced.append(Replacement(old.where, rule.where, rule.selectors))
        latest[rule.selectors] = (position, rule)
    if len(latest) > APPS:
        extra = sorted(latest.values(), key=lambda pair: pair[0])[APPS][1]
        problems.error(extra.where, "app", f"{len(latest)} rules; the limit is {APPS}")
    ordered = sorted(latest.values(), key=lambda pair: (_rank(pair[1].selectors), pair[0]))
    return tuple(rule for _, rule in ordered), tuple(replaced)


def _rank(selectors: Selectors) -> tuple[int, bool, bool, bool]:
    """More selectors win; of equal number, path over cmdline over exe."""
    return (
        selectors.count(),
        selectors.path is not None,
        selectors.cmdline is not None,
        selectors.exe is not None,
    )


def check_entries(policy: Policy, problems: Problems) -> None:
    """All lists together must fit the kernel's tables."""
    lists: list[tuple[Entry, ...] | None] = [policy.whitelist.ips, policy.whitelist.ports]
    for rule in policy.rules:
        lists += [rule.ports, rule.remotes, rule.locals, rule.listen, rule.peers]
    entries = [entry for entries in lists for entry in entries or ()]
    if len(entries) > ENTRIES:
        message = f"{len(entries)} entries in all lists; the limit is {ENTRIES}"
        problems.error(entries[ENTRIES].where, "", message)


def check_scripts(
    scripts: Iterable[tuple[str, str, Where]], settings: Settings, problems: Problems
) -> None:
    """Each (script, key, place) should exist in one of the script directories."""
    for name, key, where in scripts:
        # os.path.exists(): where root may not look without more, no script of root's is.
        if not any(os.path.exists(f"{folder}/{name}") for folder in settings.script_dirs):  # noqa: PTH110
            directories = ", ".join(settings.script_dirs) or "any directory: script_dirs is empty"
            problems.warn(where, key, f'there is no script "{name}" in {directories}')
