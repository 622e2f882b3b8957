# SPDX-License-Identifier: Apache-2.0
"""What a policy says that may not be what was meant: warnings, never errors."""

from collections.abc import Iterator

from aegis.config.lint_host import lint_file
from aegis.config.lint_rule import describe, lint_entries, lint_rule, lint_shadowed
from aegis.config.load import Loaded
from aegis.config.problem import Problem, Problems, in_order
from aegis.config.programs import is_interpreter, is_loader
from aegis.policy.killing import is_never_killed
from aegis.policy.model import Entry, Rule, Where, Whitelist

_Warning = tuple[Where, str, str]
_WEB = (80, 443)
_MANY_PORTS = 1024
_SHORTEST = {4: 8, 6: 16}  # 10.0.0.0/8 is the widest network anybody owns


def lint(loaded: Loaded) -> tuple[Problem, ...]:
    """Return every warning about *loaded* beyond those of loading it."""
    problems = Problems()
    for where, key, message in _warnings(loaded):
        problems.warn(where, key, message)
    return in_order(problems.all)


def _warnings(loaded: Loaded) -> Iterator[_Warning]:
    policy = loaded.policy
    yield from _lint_whitelist(policy.whitelist)
    yield from _lint_settings(loaded)
    for gone in loaded.replaced:
        yield gone.old, "app", f"replaced whole by {gone.new}: {describe(gone.selectors)}"
    for rule in policy.rules:
        for key, message in (*lint_rule(rule), *lint_file(rule)):
            yield loaded.place(rule.where, key), f"app.{key}", message
        for entry, key, message in lint_entries(rule):
            yield entry.where, f"app.{key}", f'"{entry.text}" {message}'
    for rule, later in lint_shadowed(policy.rules):
        message = f"can never match: {later.where} matches all of it, and comes later"
        yield loaded.place(rule.where, "cmdline"), "app.cmdline", message
    yield from _lint_whitelisted_rules(loaded)
    yield from _lint_never_killed(loaded)


def _lint_whitelist(whitelist: Whitelist) -> Iterator[_Warning]:
    for entry in whitelist.ports:
        if reason := _too_many_ports(entry):
            message = f'"{entry.text}" lets every program reach {reason} of any address, unseen'
            yield entry.where, "whitelist.ports", message
    for entry in whitelist.ips:
        network = entry.network
        if network is not None and network.prefixlen < _SHORTEST[network.version]:
            message = f'"{entry.text}" lets every program reach much of the Internet, unseen'
            yield entry.where, "whitelist.ips", message
    for program, where in whitelist.programs:
        name = program.rsplit("/", 1)[-1]
        if is_interpreter(name) or is_loader(name):
            message = f"whatever {name} runs may then reach anything, unseen"
            yield where, "whitelist.programs", message


def _too_many_ports(entry: Entry) -> str | None:
    for port in _WEB:
        if entry.first_port <= port <= entry.last_port:
            return f"port {port}"
    count = entry.last_port - entry.first_port + 1
    return f"{count} ports" if count > _MANY_PORTS else None


def _lint_settings(loaded: Loaded) -> Iterator[_Warning]:
    settings, places = loaded.policy.settings, loaded.settings_places
    if settings.unconfigured_actions.refuses:
        yield (
            places["unconfigured_actions"],
            "global.unconfigured_actions",
            "refuses every program without an [[app]], the resolver and the package manager too",
        )


def _lint_never_killed(loaded: Loaded) -> Iterator[_Warning]:
    """A kill that can only ever be a block: one of the two was not meant."""
    listed = loaded.policy.settings.never_kill
    for rule in loaded.policy.rules:
        want = rule.selectors
        program = want.path or want.exe
        if rule.actions.kill and program and is_never_killed(program, listed, trusted=True):
            message = f"blocks only: {loaded.settings_places['never_kill']} lists {program}"
            yield loaded.place(rule.where, "actions"), "app.actions", f'"kill" {message}'


def _lint_whitelisted_rules(loaded: Loaded) -> Iterator[_Warning]:
    programs = dict(loaded.policy.whitelist.programs)
    for rule in loaded.policy.rules:
        where = _whitelisted(rule, programs)
        if where is not None and not rule.strict:
            message = (
                f"has no effect: [whitelist] programs at {where} comes first; add strict = true"
            )
            yield rule.where, "app", message


def _whitelisted(rule: Rule, programs: dict[str, Where]) -> Where | None:
    want = rule.selectors
    name = want.exe if want.path is None else want.path.rsplit("/", 1)[-1]
    return programs.get(want.path or "") or programs.get(name or "")
