# SPDX-License-Identifier: Apache-2.0
"""Which rule a process gets, and which entries a flow matches.

Written from policy-language.md, one predicate a sentence.
"""

from collections.abc import Iterable
from itertools import accumulate

from aegis.policy.address import normalise
from aegis.policy.model import (
    KERNEL,
    Address,
    Entry,
    Flow,
    Identity,
    Policy,
    Resolution,
    Rule,
    Where,
    Whitelist,
)


def match_rule(policy: Policy, identity: Identity) -> Rule | None:
    """Return the rule that governs *identity*: of all that match, the last."""
    return next((r for r in reversed(policy.rules) if rule_matches(r, identity)), None)


def rule_matches(rule: Rule, identity: Identity) -> bool:
    """Selectors are ANDed; a rule without any is about no process at all."""
    want = rule.selectors
    return (
        want.count() > 0
        and (want.exe is None or exe_matches(want.exe, identity))
        and (want.path is None or path_matches(want.path, identity, rule.any_namespace))
        and (want.cmdline is None or cmdline_matches(want.cmdline, identity))
        and (want.user is None or want.user == identity.user)
        and (want.unit is None or want.unit == identity.unit)
    )


def exe_matches(name: str, identity: Identity) -> bool:
    return identity.exe == name


def path_matches(path: str, identity: Identity, any_namespace: bool = False) -> bool:
    """A path means a file in the host's own root, unless *any_namespace*: then also

    the same path in another root, as the process itself sees it.
    """
    if any_namespace:
        return path in (identity.path, identity.inner_path)
    return identity.path == path and identity.host_fs


def cmdline_matches(text: str, identity: Identity) -> bool:
    """The arguments, or a leading run of whole ones; for a script, from it on too."""
    argv = identity.argv
    if argv is None:
        return False
    starts = (0,) if identity.script_index is None else (0, identity.script_index)
    return any(text in accumulate(argv[start:], "{} {}".format) for start in starts)


def needs_trust(rule: Rule) -> bool:
    """Whether any file of the right name could claim *rule*, so that it must be trusted."""
    by_name_only = rule.selectors.path is None and (
        rule.selectors.exe is not None or rule.selectors.cmdline is not None
    )
    return not rule.untrusted_file and (rule.ignore or by_name_only)


def needs_argv0(rule: Rule) -> bool:
    """Whether a first argument that is not what was executed could claim *rule*."""
    return not rule.untrusted_file and rule.selectors.cmdline is not None


def may_claim(rule: Rule, identity: Identity) -> bool:
    """Whether *identity* gets the permissions of *rule*, and not just its restrictions."""
    if needs_argv0(rule) and identity.argv0_false:
        return False
    return identity.trusted or not needs_trust(rule)


def whitelisted_program(whitelist: Whitelist, identity: Identity) -> tuple[str, Where] | None:
    """Return what in ``[whitelist] programs`` names *identity*; trusted files only."""
    if not identity.trusted:
        return None
    for program, where in whitelist.programs:
        matches = path_matches if names_path(program) else exe_matches
        if matches(program, identity):
            return program, where
    return None


def names_path(program: str) -> bool:
    """Whether *program* of a whitelist is a path; else it is a base name."""
    return program == KERNEL or program.startswith("/")


def covers(entry: Entry, address: Address, resolution: Resolution) -> bool:
    """Whether *entry* is about *address* (normalised); one without an address is about all.

    A prefix covers its own IP version only: ``::/0`` grants no IPv4. A name that
    did not resolve covers nothing.
    """
    if entry.network is not None:
        return entry.network.version == address.version and address in entry.network
    if entry.name is not None:
        return address in map(normalise, resolution.names.get(entry.name, frozenset()))
    return True


def has_port(entry: Entry, flow: Flow) -> bool:
    """Whether *entry* lists the port and protocol of *flow*."""
    in_range = entry.first_port <= flow.port <= entry.last_port
    return in_range and flow.protocol in entry.protocols


def find_entry(entries: Iterable[Entry] | None, flow: Flow, resolution: Resolution) -> Entry | None:
    """Return the first of *entries* that allows *flow*, whose address is normalised."""
    for entry in entries or ():
        if has_port(entry, flow) and covers(entry, flow.address, resolution):
            return entry
    return None
