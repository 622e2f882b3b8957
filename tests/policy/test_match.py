# SPDX-License-Identifier: Apache-2.0
"""Which rule a program gets: the sentences of policy-language.md."""

from dataclasses import replace
from typing import Any

import pytest

from aegis.policy.match import (
    cmdline_matches,
    covers,
    match_rule,
    may_claim,
    needs_trust,
    rule_matches,
    whitelisted_program,
)
from aegis.policy.model import KERNEL, Address, Identity, Resolution, Rule, Selectors, Where
from tests.policy.build import LOG, TELEGRAF, entry, out, policy, rule

SCRIPT = Identity(
    path="/bin/dash",
    exe="dash",
    argv=("/bin/sh", "-e", "/opt/wrapper", "--all", "now"),
    script_index=2,
)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        pytest.param("/bin/sh", True, id="first-argument"),
        pytest.param("/bin/sh -e /opt/wrapper --all now", True, id="all"),
        pytest.param("/bin/sh -e /opt/wrapper", True, id="leading-run"),
        pytest.param("/bin/sh -e /opt/wrapp", False, id="part-of-an-argument"),
        pytest.param("/bin/sh ", False, id="trailing-space"),
        pytest.param("", False, id="empty"),
        pytest.param("-e /opt/wrapper", False, id="from-neither-start"),
        pytest.param("/opt/wrapper", True, id="script"),
        pytest.param("/opt/wrapper --all", True, id="script-leading-run"),
        pytest.param("/opt/wrapper --all now", True, id="script-all"),
        pytest.param("/opt/wrapper now", False, id="script-argument-left-out"),
        pytest.param("--all", False, id="after-the-script"),
    ],
)
def test_cmdline_is_a_leading_run_of_whole_arguments(text: str, matches: bool) -> None:
    """From the first argument on, or from the script's."""
    assert cmdline_matches(text, SCRIPT) is matches


def test_script_counts_only_for_interpreter_scripts() -> None:
    """An argument that merely looks like a script is not one."""
    assert not cmdline_matches("/opt/wrapper", replace(SCRIPT, script_index=None))


def test_a_false_first_argument_earns_nothing() -> None:
    """``exec -a``: the rule's restrictions hold, its permissions do not, unless they may be

    had by anyone. Rules that do not look at arguments do not look at the first one.
    """
    false = replace(SCRIPT, argv0_false=True)
    assert cmdline_matches("/bin/sh -e", false)
    by_words = rule(cmdline="/bin/sh -e", path="/bin/sh")
    assert may_claim(by_words, SCRIPT) and not may_claim(by_words, false)
    assert may_claim(replace(by_words, untrusted_file=True), false)
    assert may_claim(rule(path="/bin/sh"), false)


def test_unread_arguments_match_no_cmdline() -> None:
    """Unknown is never "any"."""
    assert not cmdline_matches("", Identity(argv=None))
    assert not cmdline_matches("", Identity(argv=()))


def test_an_empty_first_argument_can_be_meant() -> None:
    """argv[0] may be empty; one space joins it to the next."""
    assert cmdline_matches(" x", Identity(argv=("", "x")))


ALL: dict[str, Any] = {
    "exe": "telegraf",
    "path": "/usr/bin/telegraf",
    "cmdline": "/usr/bin/telegraf",
    "user": 0,
    "unit": "telegraf.service",
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"exe": "nc"}, id="exe"),
        pytest.param({"path": "/opt/telegraf"}, id="path"),
        pytest.param({"argv": ("telegraf",)}, id="cmdline"),
        pytest.param({"user": 1}, id="user"),
        pytest.param({"unit": "nc.service"}, id="unit"),
        pytest.param({"exe": None}, id="exe-unknown"),
        pytest.param({"path": None}, id="path-unknown"),
        pytest.param({"argv": None}, id="cmdline-unknown"),
        pytest.param({"unit": None}, id="no-unit"),
        pytest.param({"host_fs": False}, id="another-root"),
    ],
)
def test_selectors_are_anded(change: dict[str, object]) -> None:
    """All match, or the rule does not."""
    wanted = rule(**ALL)
    identity = replace(TELEGRAF, user=0, unit="telegraf.service")
    assert rule_matches(wanted, identity)
    assert not rule_matches(wanted, replace(identity, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", sorted(ALL))
def test_one_selector_is_enough(key: str) -> None:
    """Even user (uid 0 too) or unit alone."""
    wanted = rule(**{key: ALL[key]})
    assert rule_matches(wanted, replace(TELEGRAF, user=0, unit="telegraf.service"))
    assert not rule_matches(wanted, Identity(user=1))


def test_a_rule_without_selectors_is_about_nobody() -> None:
    """Configuration refuses it; here it must at least not be about everyone."""
    assert not rule_matches(Rule(Selectors(), Where("f", 1), LOG), TELEGRAF)


def test_any_namespace_lifts_the_root_file_system() -> None:
    """``namespace = "any"``: the same path in a container matches too."""
    inside = replace(TELEGRAF, host_fs=False, trusted=False)
    assert rule_matches(rule(path="/usr/bin/telegraf", any_namespace=True), inside)
    assert not rule_matches(rule(path="/usr/bin/telegraf"), inside)
    assert rule_matches(rule(exe="telegraf"), inside)


def test_any_namespace_lifts_a_chroot() -> None:
    """By the path the process itself sees as well as by the whole one; without the key neither."""
    jailed = replace(TELEGRAF, path="/jail/usr/bin/telegraf", inner_path="/usr/bin/telegraf")
    for path in ("/usr/bin/telegraf", "/jail/usr/bin/telegraf"):
        assert rule_matches(rule(path=path, any_namespace=True), jailed)
    assert not rule_matches(rule(path="/usr/bin/telegraf"), jailed)
    assert rule_matches(rule(path="/jail/usr/bin/telegraf"), jailed)
    assert not rule_matches(rule(path="/bin/telegraf", any_namespace=True), jailed)


def test_the_last_match_governs() -> None:
    """Rules ascend in precedence."""
    first, last, other = rule(1, exe="telegraf"), rule(2, user=1000), rule(3, exe="nc")
    assert match_rule(policy(first, last, other), TELEGRAF) is last
    assert match_rule(policy(last, first, other), TELEGRAF) is first
    assert match_rule(policy(other), TELEGRAF) is None


@pytest.mark.parametrize(
    ("keys", "needs"),
    [
        pytest.param({"exe": "nc"}, True, id="exe"),
        pytest.param({"cmdline": "nc"}, True, id="cmdline"),
        pytest.param({"exe": "nc", "user": 0, "unit": "x"}, True, id="exe-and-user"),
        pytest.param({"path": "/nc"}, False, id="path"),
        pytest.param({"path": "/nc", "exe": "nc", "cmdline": "nc"}, False, id="path-too"),
        pytest.param({"user": 0}, False, id="user"),
        pytest.param({"unit": "x"}, False, id="unit"),
        pytest.param({"exe": "nc", "untrusted_file": True}, False, id="lifted"),
        pytest.param({"path": "/nc", "ignore": True}, True, id="ignore"),
        pytest.param({"user": 0, "ignore": True}, True, id="ignore-user"),
        pytest.param({"exe": "x", "ignore": True, "untrusted_file": True}, False, id="both"),
    ],
)
def test_what_any_file_could_claim_needs_trust(keys: dict[str, Any], needs: bool) -> None:
    """exe or cmdline alone, and every ``ignore``; ``untrusted_file`` lifts it."""
    wanted = rule(**keys)
    assert needs_trust(wanted) is needs
    assert may_claim(wanted, Identity(trusted=True))
    assert may_claim(wanted, Identity(trusted=False)) is not needs


def test_whitelist_programs_are_names_or_paths_of_trusted_files() -> None:
    """Naming malware ``systemd`` gains nothing."""
    by_name = policy(programs=["nc", "telegraf"]).whitelist
    by_path = policy(programs=["/usr/bin/telegraf"]).whitelist
    for whitelist, name in ((by_name, "telegraf"), (by_path, "/usr/bin/telegraf")):
        assert whitelisted_program(whitelist, TELEGRAF) == (name, Where("main.toml", 9))
        assert whitelisted_program(whitelist, replace(TELEGRAF, trusted=False)) is None
        assert whitelisted_program(whitelist, Identity()) is None
    assert whitelisted_program(by_path, replace(TELEGRAF, host_fs=False)) is None


def test_a_whitelisted_kernel_thread_is_no_base_name() -> None:
    """A file can be called ``[kernel]``; where a path stands it cannot."""
    whitelist = policy(programs=[KERNEL]).whitelist
    assert whitelisted_program(whitelist, Identity(path=KERNEL)) == (KERNEL, Where("main.toml", 9))
    assert whitelisted_program(whitelist, Identity(path=f"/bin/{KERNEL}", exe=KERNEL)) is None


@pytest.mark.parametrize(
    ("text", "destination", "covered"),
    [
        pytest.param("10.0.0.0/8:443", "10.255.255.255:1", True, id="last-address"),
        pytest.param("10.0.0.0/8:443", "11.0.0.0:443", False, id="one-after"),
        pytest.param("443", "[2001:db8::1]:1", True, id="any-address"),
        pytest.param("[::/0]:443", "10.0.0.1:443", False, id="ipv6-is-not-ipv4"),
        pytest.param("0.0.0.0/0", "[::1]:443", False, id="ipv4-is-not-ipv6"),
        pytest.param("bob.com", "192.0.2.7:443", True, id="name"),
        pytest.param("bob.com", "192.0.2.8:443", False, id="not-the-name's"),
        pytest.param("void.com", "192.0.2.7:443", False, id="unresolved"),
    ],
)
def test_an_entry_covers_its_addresses(text: str, destination: str, covered: bool) -> None:
    """Ports are another question."""
    address: Address = out("[::ffff:192.0.2.7]:1").address  # as a resolver may spell it
    resolution = Resolution({"bob.com": frozenset({address})})
    assert covers(entry(text), out(destination).address, resolution) is covered
