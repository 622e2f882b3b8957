# SPDX-License-Identifier: Apache-2.0
"""What one rule says that may not be what was meant; by looking at it alone."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import PurePosixPath

from aegis.config.programs import is_interpreter, is_loader, lifeline
from aegis.policy.flatten import grants, may_be_local, may_be_remote
from aegis.policy.model import Entry, Resolution, Rule, Selectors

Finding = tuple[str, str]
"""The key of the rule, and what to say of it."""

_LISTS = ("ports", "remotes", "locals")


def lint_rule(rule: Rule) -> Iterator[Finding]:
    """Yield what the keys of *rule* make one wonder about."""
    for check in _CHECKS:
        yield from check(rule)


def describe(selectors: Selectors) -> str:
    """The selectors as they would be written: ``exe = "curl", user = 33``."""
    keys = ("exe", "path", "cmdline", "user", "unit")
    values = ((key, getattr(selectors, key)) for key in keys)
    return ", ".join(
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
        for key, value in values
        if value is not None
    )


def program_names(selectors: Selectors) -> list[tuple[str, str]]:
    """The names *selectors* give a program, each with its key."""
    names = []
    if selectors.path is not None:
        names.append(("path", PurePosixPath(selectors.path).name))
    if selectors.exe is not None:
        names.append(("exe", selectors.exe))
    if selectors.unit is not None:
        names.append(("unit", selectors.unit))
    return names


def _contradiction(rule: Rule) -> Iterator[Finding]:
    path, exe = rule.selectors.path, rule.selectors.exe
    if path is not None and exe is not None and PurePosixPath(path).name != exe:
        yield "exe", f'can never match: the file of path is called "{PurePosixPath(path).name}"'
    cmdline = rule.selectors.cmdline
    if cmdline is not None and cmdline != cmdline.strip():
        yield "cmdline", "matches nothing but an empty argument: it begins or ends with a blank"


def _shared_identity(rule: Rule) -> Iterator[Finding]:
    if rule.selectors.count() > 1:
        return
    for key, name in program_names(rule.selectors):
        if is_loader(name):
            yield key, f"{name} runs any file it is given: this rule is for all of them"
        elif is_interpreter(name):
            message = f"whatever {name} runs shares this rule; add cmdline, user or unit"
            yield key, message


def _chosen_words(rule: Rule) -> Iterator[Finding]:
    """A base name in front: a link of that name to an interpreter passes for the program."""
    want = rule.selectors
    permits = rule.ignore or rule.remote or rule.local
    permits = permits or any(getattr(rule, key) for key in _LISTS)
    if want.cmdline is None or want.cmdline.startswith("/"):
        return
    if permits and want.path is None and want.user is None and want.unit is None:
        message = "any user can start a program with these words and have what this rule allows"
        yield "cmdline", f"{message}; begin with the full path, or add path, user or unit"


def _lockout(rule: Rule) -> Iterator[Finding]:
    if not rule.actions.refuses or rule.ignore:
        return
    for key, name in program_names(rule.selectors):
        if what := lifeline(name):
            word = "kill" if rule.actions.kill else "block"
            yield key, f'"{word}" on {name} can cost you {what}: try it in observe mode first'
            return


def _permissions(rule: Rule) -> Iterator[Finding]:
    if rule.remote:
        yield "remote", "true permits every remote destination; false would forbid them"
    if rule.local:
        yield "local", "true permits every local destination; false would forbid them"
    if rule.any_namespace:
        yield "namespace", '"any" lets a file at the same path in any container use this rule'


def _without_effect(rule: Rule) -> Iterator[Finding]:
    if rule.ignore:
        keys = [key for key in (*_LISTS, "listen", "peers") if getattr(rule, key) is not None]
        keys += [key for key in ("local", "remote") if getattr(rule, key) is not None]
        yield from ((key, "has no effect: ignore = true allows everything") for key in keys)
    elif not rule.actions.reports:
        keys = [key for key in _LISTS if getattr(rule, key) is not None]
        message = "has no effect: these actions let everything pass and say nothing"
        yield from ((key, message) for key in keys[:1])
    for scope in ("local", "remote"):
        if rule.ports is not None and getattr(rule, scope) is False:
            yield scope, f"false overrules ports: they count for what is not {scope} only"


_CHECKS: tuple[Callable[[Rule], Iterator[Finding]], ...] = (
    _contradiction,
    _shared_identity,
    _chosen_words,
    _lockout,
    _permissions,
    _without_effect,
)


def lint_entries(rule: Rule) -> Iterator[tuple[Entry, str, str]]:
    """Yield (entry, key, message) for entries that no destination of their scope matches."""
    for entry in rule.remotes or ():
        for prefix, _ in grants((entry,), Resolution()):
            if prefix is not None and not may_be_remote(prefix):
                yield entry, "remotes", "can never match: it is local; move it to locals"
    for entry in rule.locals or ():
        for prefix, _ in grants((entry,), Resolution()):
            if prefix is not None and not may_be_local(prefix):
                yield entry, "locals", "can never match: it is remote; move it to remotes"


def lint_shadowed(rules: Iterable[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Yield (rule, later one): what the first matches, the second matches and wins."""
    places: dict[Selectors, int] = {}
    rules = tuple(rules)
    for place, rule in enumerate(rules):
        places[rule.selectors] = place
    for place, rule in enumerate(rules):
        want = rule.selectors
        if want.cmdline is None:
            continue
        for shorter in accumulate(want.cmdline.split(" ")[:-1], "{} {}".format):
            other = Selectors(want.exe, want.path, shorter, want.user, want.unit)
            if places.get(other, -1) > place:
                yield rule, rules[places[other]]
                break
