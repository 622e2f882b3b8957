# SPDX-License-Identifier: Apache-2.0
"""A policy back into TOML: what was read must be what is in force, said twice.

Entries are written from what they mean, not from their text, so an entry that
was misread comes out as another.
"""

import json
from collections.abc import Iterator
from dataclasses import replace

from aegis.policy.model import Entry, Notify, Policy, Protocol, Rule, Where, Whitelist

NOWHERE = Where("", 0)
_SELECTORS = ("exe", "path", "cmdline", "user", "unit")
_LISTS = ("ports", "remotes", "locals", "listen", "peers")
_ANY_PORT = (1, 65535)


def print_policy(policy: Policy) -> str:
    """TOML that means *policy*; its texts must be Unicode."""
    tables = [_global(policy), _whitelist(policy.whitelist), _notify(policy.notify)]
    blocks = [*tables, *map(_app, policy.rules)]
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def _global(policy: Policy) -> Iterator[str]:
    yield "[global]"
    for key, value in vars(policy.settings).items():
        if value is not None:
            yield _line(key, value.names() if key.endswith("_actions") else value)


def _whitelist(whitelist: Whitelist) -> Iterator[str]:
    yield "[whitelist]"
    yield _line("ips", [print_entry(entry) for entry in whitelist.ips])
    yield _line("ports", [print_entry(entry) for entry in whitelist.ports])
    yield _line("programs", [program for program, _ in whitelist.programs])
    yield _line("resolvers", whitelist.resolvers)


def _notify(notify: Notify) -> Iterator[str]:
    yield "[notify]"
    for key, value in vars(notify).items():
        if value is not None:
            yield _line(key, value)


def _app(rule: Rule) -> Iterator[str]:
    yield "[[app]]"
    for key in _SELECTORS:
        if (value := getattr(rule.selectors, key)) is not None:
            yield _line(key, value)
    for key in _LISTS:
        if (entries := getattr(rule, key)) is not None:
            yield _line(key, [print_entry(entry) for entry in entries])
    for key in ("local", "remote"):
        if (switch := getattr(rule, key)) is not None:
            yield _line(key, switch)
    for key in ("untrusted_file", "ignore", "strict", "sockets", "detent"):
        yield _line(key, getattr(rule, key))
    yield _line("namespace", "any" if rule.any_namespace else "host")
    yield _line("actions", rule.actions.names())
    yield _line("kill_tree", rule.actions.kill_tree)


def _line(key: str, value: object) -> str:
    # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")


def print_entry(entry: Entry) -> str:
    """An entry as the contract writes it."""
    ports = _ports(entry)
    if entry.network is None and entry.name is None:
        return ports
    host = str(entry.network) if entry.network is not None else str(entry.name)
    if (entry.first_port, entry.last_port) == _ANY_PORT and len(entry.protocols) == 2:
        return host
    return f"[{host}]:{ports}" if ":" in host else f"{host}:{ports}"


def _ports(entry: Entry) -> str:
    first, last = entry.first_port, entry.last_port
    text = str(first) if first == last else f"{first}-{last}"
    if len(entry.protocols) == len(Protocol):
        return text
    [protocol] = entry.protocols
    return f"{text}/{protocol}"


def meaning(policy: Policy) -> Policy:
    """The policy without the places and the spellings of it."""
    whitelist = policy.whitelist
    return Policy(
        policy.settings,
        replace(
            whitelist,
            ips=_bare(whitelist.ips),
            ports=_bare(whitelist.ports),
            programs=tuple((program, NOWHERE) for program, _ in whitelist.programs),
            where=None,
        ),
        tuple(_bare_rule(rule) for rule in policy.rules),
    )


def _bare_rule(rule: Rule) -> Rule:
    bare = replace(rule, where=NOWHERE)
    for key in _LISTS:
        if (entries := getattr(rule, key)) is not None:
            bare = replace(bare, **{key: _bare(entries)})  # type: ignore[arg-type]
    return bare


def _bare(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    return tuple(entry._replace(text="", where=NOWHERE) for entry in entries)
