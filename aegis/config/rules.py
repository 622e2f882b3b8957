# SPDX-License-Identifier: Apache-2.0
"""From an ``[[app]]`` table to a rule: selectors, users, paths, entries, defaults."""

import os
from collections.abc import Callable

from aegis.config.document import name_of
from aegis.config.limits import PATH_BYTES
from aegis.config.problem import Problems
from aegis.config.texts import as_actions, check_exe, looks_like_unit
from aegis.config.users import uid_of
from aegis.config.validate import App
from aegis.policy.killing import refine_kill
from aegis.policy.model import KERNEL, Actions, Entry, Rule, Selectors, Settings, Where

# Where a path leads to, links followed, as os.path.realpath() has it.
Follow = Callable[[str], str]

_LISTS = ("ports", "remotes", "locals", "listen", "peers")


def build_rule(app: App, settings: Settings, problems: Problems, follow: Follow) -> Rule | None:
    """Make the rule of *app*; None when an error went to *problems*."""
    _warn(app, problems)
    selectors = _build_selectors(app, problems, follow)
    if selectors is None:
        return None
    table = app.table
    lists = {key: _place_entries(app, key) for key in _LISTS}
    return Rule(
        selectors=selectors,
        where=app.where(),
        actions=_build_actions(app, selectors, settings),
        any_namespace=table.namespace == "any",
        untrusted_file=table.untrusted_file,
        ignore=table.ignore,
        local=table.local,
        remote=table.remote,
        strict=table.strict,
        sockets=table.sockets,
        detent=settings.detent if table.detent is None else table.detent,
        **lists,
    )


def place(entry: Entry, where: Where) -> Entry:
    """The same entry, at its place. (``_replace`` takes three times as long.)"""
    return Entry(entry[0], where, *entry[2:])


def resolve_path(path: str, where: Where, key: str, problems: Problems, follow: Follow) -> str:
    """Follow symlinks in *path*, which the kernel never sees, and say so."""
    if path == KERNEL:
        return path
    real = _real_path(path, follow)
    if real != os.path.normpath(path).replace("//", "/"):
        problems.warn(where, key, f'"{path}" goes through a symbolic link; "{real}" is meant')
    if len(os.fsencode(real)) > PATH_BYTES:
        problems.error(where, key, f'"{real}" has more than {PATH_BYTES} bytes')
    return real


def _real_path(path: str, follow: Follow) -> str:
    """*follow* is asked where we may not look; what is not there yet leads nowhere else."""
    try:
        return os.path.realpath(path, strict=True)
    except PermissionError:
        return follow(path)
    except OSError:
        return os.path.realpath(path)


def _build_selectors(app: App, problems: Problems, follow: Follow) -> Selectors | None:
    table = app.table
    exe = table.exe
    if not any((exe, table.path, table.cmdline, table.unit)) and table.user is None:
        exe = _exe_of_file(app, problems)
        if exe is None:
            return None
    path = table.path
    if path is not None:
        path = resolve_path(path, app.where("path"), "app.path", problems, follow)
    user = None
    if table.user is not None:
        user = uid_of(table.user)
        if user is None:  # as was told when the table was checked
            return None
    return Selectors(exe, path, table.cmdline, user, table.unit)


def _exe_of_file(app: App, problems: Problems) -> str | None:
    if not app.document.drop_in:
        message = "needs a selector: exe, path, cmdline, user or unit"
        problems.error(app.where(), "app", message)
        return None
    try:
        return check_exe(name_of(app.document.file))
    except ValueError as error:
        message = f"has no selector, and the file is named after no program: {error}"
        problems.error(app.where(), "app", message)
        return None


def _build_actions(app: App, selectors: Selectors, settings: Settings) -> Actions:
    words, tree = app.table.actions, app.table.kill_tree
    actions = settings.default_actions if words is None else as_actions(words)
    tree = settings.kill_tree if tree is None else tree
    return refine_kill(actions, selectors, settings, tree=tree)


def _place_entries(app: App, key: str) -> tuple[Entry, ...] | None:
    entries: tuple[Entry, ...] | None = getattr(app.table, key)
    if entries is None:
        return None
    places = app.document.where_elements(("app", app.index, key), len(entries))
    return tuple(map(place, entries, places))


def _warn(app: App, problems: Problems) -> None:
    unit = app.table.unit
    if unit and not looks_like_unit(unit):
        message = f'"{unit}" has no ending; units are named as in "{unit}.service"'
        problems.warn(app.where("unit"), "app.unit", message)
