# SPDX-License-Identifier: Apache-2.0
"""The policy of this host, from its files; or of one file, to check it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aegis.config.document import Document, parse_document
from aegis.config.files import MAIN_FILE, Listing, list_names, order_drop_ins, read_file
from aegis.config.merge import (
    Replacement,
    check_entries,
    check_scripts,
    merge_rules,
    merge_settings,
    merge_whitelist,
)
from aegis.config.notify import merge_notify
from aegis.config.problem import PolicyError, Problem, Problems, in_order
from aegis.config.rules import Follow, build_rule
from aegis.config.texts import SCRIPT
from aegis.config.validate import App, FileTables, validate_document
from aegis.policy.garbage import uncollected
from aegis.policy.model import Policy, Where
from aegis.trust import Trust, TrustError


@dataclass(frozen=True)
class Loaded:
    """A policy that may be used, what to say about it, and where its words stand."""

    policy: Policy
    warnings: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # path, and why it was not read
    replaced: tuple[Replacement, ...] = ()
    places: Mapping[tuple[Where, str], Where] = field(default_factory=dict)
    settings_places: Mapping[str, Where] = field(default_factory=dict)

    def place(self, rule: Where, key: str) -> Where:
        """Where *key* of the rule at *rule* stands; the rule's header if it was not written."""
        return self.places.get((rule, key), rule)


def load_policy(
    path: Path = MAIN_FILE,
    *,
    check_trust: bool = True,
    trust: Trust | None = None,
    follow: Follow = os.path.realpath,
) -> Loaded:
    """Return the policy of the main file *path* and the drop-ins it names.

    *trust* says whose files may be used; root's, unless *check_trust* is False. *follow* is
    asked where links lead to in directories we may not look into.

    :raises PolicyError: listing every problem of every file
    """
    if check_trust and trust is None:
        trust = Trust()
    with uncollected():
        return _load(path, trust, follow)


def _load(path: Path, trust: Trust | None, follow: Follow) -> Loaded:
    problems = Problems()
    # Path.resolve() would follow symlinks, which are to be refused.
    main = _read(os.path.abspath(path), trust, problems, drop_in=False)  # noqa: PTH100
    if main is None:
        raise PolicyError(problems.all)
    listing = _list_drop_ins(main, trust, problems)
    drop_ins = [_read(file, trust, problems, drop_in=True) for file in listing.files]
    documents = [main, *(document for document in drop_ins if document)]
    return _assemble(documents, listing.skipped, trust, problems, follow)


def load_lone(path: Path) -> Loaded:
    """Return the policy of the one file *path*, whoever owns it, to check it.

    A file that names no directories of drop-ins is taken for a drop-in itself.

    :raises PolicyError: listing every problem of it
    """
    problems = Problems()
    document = _read(str(path), None, problems, drop_in=True)
    if document is None:
        raise PolicyError(problems.all)
    directories = _include_dirs(document)
    if directories is not None or path.name == MAIN_FILE.name:
        document = replace(document, drop_in=False)
    skipped = tuple(
        (directory, "one file is checked alone, without drop-ins")
        for directory in directories or ()
    )
    return _assemble([document], skipped, None, problems)


def _read(file: str, trust: Trust | None, problems: Problems, *, drop_in: bool) -> Document | None:
    try:
        content = read_file(file, trust)
    except TrustError as error:
        problems.error(Where(file, 1), "", str(error))
    except OSError as error:
        problems.error(Where(file, 1), "", f"cannot be read: {error.strerror}")
    else:
        return parse_document(file, content, problems, drop_in=drop_in)
    return None


def _include_dirs(document: Document) -> list[str] | None:
    """The directories *document* names, if it names any; only what is right of it."""
    table = document.data.get("global")
    names = table.get("include_dirs") if isinstance(table, dict) else None
    if not isinstance(names, list):
        return None
    texts = (name for name in names if isinstance(name, str) and name.startswith("/"))
    return list(dict.fromkeys(os.path.normpath(name) for name in texts))


def _list_drop_ins(main: Document, trust: Trust | None, problems: Problems) -> Listing:
    found: list[tuple[str, str]] = []
    key = "global.include_dirs"
    where = main.where("global", "include_dirs")
    for directory in _include_dirs(main) or ():
        try:
            found += [(directory, name) for name in list_names(directory, trust)]
        except FileNotFoundError:
            problems.warn(where, key, f"{directory} does not exist")
        except TrustError as error:
            problems.error(where, key, str(error))
        except OSError as error:
            problems.error(where, key, f"{directory} cannot be read: {error.strerror}")
    main_file = os.path.split(main.file)
    listing = order_drop_ins(pair for pair in found if pair != main_file)
    if main_file not in found:
        return listing
    return replace(listing, skipped=(*listing.skipped, (main.file, "the main file itself")))


def _assemble(
    documents: Sequence[Document],
    skipped: tuple[tuple[str, str], ...],
    trust: Trust | None,
    problems: Problems,
    follow: Follow = os.path.realpath,
) -> Loaded:
    """Make one policy of *documents*, which are in reading order.

    :raises PolicyError: if anything in *problems* by then is an error
    """
    files = [validate_document(document, problems) for document in documents]
    settings, settings_places = merge_settings(files, problems, follow)
    whitelist = merge_whitelist(files, problems, follow)
    apps = [app for file in files for app in file.apps]
    built = (build_rule(app, settings, problems, follow) for app in apps)
    rules, replaced = merge_rules((rule for rule in built if rule), problems)
    policy = Policy(settings, whitelist, rules, merge_notify(files, trust, problems))
    check_entries(policy, problems)
    if settings.script_dirs or len(documents) > 1 or not documents[0].drop_in:
        check_scripts(_scripts(files, apps), settings, problems)
    problems.raise_errors()
    return Loaded(
        policy,
        in_order(problems.all),
        tuple(document.file for document in documents),
        skipped,
        replaced,
        _places(apps),
        settings_places,
    )


def _places(apps: Iterable[App]) -> dict[tuple[Where, str], Where]:
    return {
        (app.where(), key): app.where(key) for app in apps for key in app.table.model_fields_set
    }


def _scripts(files: Iterable[FileTables], apps: Iterable[App]) -> list[tuple[str, str, Where]]:
    """Every ``script:NAME`` written: its name, key and place."""
    words: list[tuple[str, str, Where]] = []
    for file in files:
        for key in ("default_actions", "unconfigured_actions"):
            listed = getattr(file.settings, key) if file.settings else ()
            at = file.document.where
            words += [(w, f"global.{key}", at("global", key, n)) for n, w in enumerate(listed)]
    for app in apps:
        listed = app.table.actions or ()
        words += [(w, "app.actions", app.where("actions", n)) for n, w in enumerate(listed)]
    return [(w.removeprefix(SCRIPT), key, at) for w, key, at in words if w.startswith(SCRIPT)]
