# SPDX-License-Identifier: Apache-2.0
"""Warnings: each doubt is raised where it is due, and nowhere else."""

import os
from pathlib import Path

import pytest

from aegis.config.lint import lint
from aegis.config.lint_host import lint_file
from aegis.policy.model import Actions, Rule, Selectors, Where
from tests.config.conftest import Etc


def lint_text(etc: Etc, text: str) -> list[str]:
    """What lint says of *text* as a lone drop-in."""
    return [etc.bare(str(problem)) for problem in lint(etc.lone(text))]


def app(keys: str) -> str:
    """A rule about a program that is no program of this host."""
    return f'[[app]]\nexe = "no-such-program"\n{keys}'


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('[whitelist]\nports = ["443"]', "2:10: whitelist.ports: "),
        ('[whitelist]\nports = ["53", "1-100"]', "2:16: whitelist.ports: "),
        ('[whitelist]\nports = ["9000-19000/udp"]', "2:10: whitelist.ports: "),
        ('[whitelist]\nips = ["0.0.0.0/0"]', "2:8: whitelist.ips: "),
        ('[whitelist]\nips = ["128.0.0.0/7"]', "2:8: whitelist.ips: "),
        ('[whitelist]\nips = ["2000::/3"]', "2:8: whitelist.ips: "),
        ('[whitelist]\nprograms = ["python3.11"]', "2:13: whitelist.programs: whatever python3.11"),
        ('[whitelist]\nprograms = ["/lib64/ld-linux-x86-64.so.2"]', "2:13: whitelist.programs: "),
        ('[global]\nunconfigured_actions = ["block"]', "2:1: global.unconfigured_actions: "),
        (app("remote = true"), "3:1: app.remote: true permits every remote destination"),
        (app("local = true"), "3:1: app.local: true permits every local destination"),
        (app('namespace = "any"'), '3:1: app.namespace: "any" lets a file'),
        (app('remotes = ["127.0.0.1:80"]'), '3:12: app.remotes: "127.0.0.1:80" can never match'),
        (app('remotes = ["::1"]'), '3:12: app.remotes: "::1" can never match'),
        (app('remotes = ["0.0.0.0"]'), '3:12: app.remotes: "0.0.0.0" can never match'),
        (app('locals = ["10.0.0.0/8"]'), '3:11: app.locals: "10.0.0.0/8" can never match'),
        (app('ignore = true\nports = ["1"]'), "4:1: app.ports: has no effect"),
        (app("ignore = true\nremote = false"), "4:1: app.remote: has no effect"),
        (app('actions = []\nports = ["1"]'), "4:1: app.ports: has no effect"),
        (app('actions = ["allow"]\nremotes = ["1"]'), "4:1: app.remotes: has no effect"),
        (app('ports = ["1"]\nlocal = false'), "4:1: app.local: false overrules ports"),
        (app('path = "/nonexistent/other"'), "2:1: app.exe: can never match: the file of path"),
        ('[[app]]\ncmdline = "x "', "2:1: app.cmdline: matches nothing but an empty argument"),
        (app('cmdline = "x y"\nremotes = ["1"]'), "3:1: app.cmdline: any user can start"),
        ('[[app]]\ncmdline = "x"\nignore = true', "2:1: app.cmdline: any user can start"),
        ('[[app]]\ncmdline = "x"\nlocal = true', "2:1: app.cmdline: any user can start"),
        ('[[app]]\nexe = "busybox"', "2:1: app.exe: whatever busybox runs shares this rule"),
        ('[[app]]\nexe = "ld-linux-x86-64.so.2"', "2:1: app.exe: ld-linux-x86-64.so.2 runs any"),
        (
            '[[app]]\nexe = "nosuchsshd"\nunit = "ssh.service"\nactions = ["kill"]',
            "3:1: app.unit: ",
        ),
    ],
)
def test_warned(etc: Etc, text: str, warning: str) -> None:
    """The doubt is told where its cause is written."""
    assert any(found.startswith(f"lone.toml:{warning}") for found in lint_text(etc, text))


@pytest.mark.parametrize(
    "text",
    [
        '[whitelist]\nports = ["53", "123/udp", "8000-8100"]',
        '[whitelist]\nips = ["10.0.0.0/8", "2001:db8::/32", "fc00::/16"]\nprograms = ["systemd"]',
        '[global]\nunconfigured_actions = ["log", "notify"]',
        app("remote = false\nlocal = false"),
        app('remotes = ["10.0.0.0/8", "0.0.0.0/0", "::/0", "localhost", "8086", "126.0.0.0/7"]'),
        app('locals = ["127.0.0.2", "::1", "0.0.0.0/0", "localhost", "8086"]'),
        app('actions = ["kill"]'),
        app('actions = ["allow", "log"]\nports = ["1"]'),
        app("actions = []\n"),
        app('ports = ["1"]\nremotes = ["bob.com"]'),
        app("ignore = true"),
        '[[app]]\nexe = "busybox"\nuser = 0',
        '[[app]]\ncmdline = "/nonexistent/x y"',
        '[[app]]\nunit = "ssh.service"\nactions = ["log"]',
        '[[app]]\ncmdline = "/x"\nports = ["1"]',
        '[[app]]\ncmdline = "x"\nremotes = []',
        '[[app]]\ncmdline = "x"\nports = ["1"]\nuser = 0',
        '[[app]]\ncmdline = "x"\nports = ["1"]\nunit = "x.service"',
        '[[app]]\npath = "[kernel]"\nports = ["2049"]',
        '[[app]]\nexe = "no-such-program"\n[[app]]\nexe = "no-such-program"\nuser = 0',
    ],
)
def test_not_warned(etc: Etc, text: str) -> None:
    """What is in order raises no doubt."""
    assert lint_text(etc, text) == []


@pytest.mark.parametrize("exe", ["sshd", "systemd-resolved", "dhclient", "apt-get", "dpkg"])
def test_lockout(etc: Etc, exe: str) -> None:
    """block and kill on what lets the administrator in or the host out."""
    for action, said in (("block", True), ("kill", True), ("notify", False)):
        text = f'[[app]]\nexe = "{exe}"\nuntrusted_file = true\nactions = ["{action}"]'
        assert any("can cost you" in warning for warning in lint_text(etc, text)) is said


def test_default_actions_count_for_a_lockout(etc: Etc) -> None:
    text = '[global]\ndefault_actions = ["block"]\n[[app]]\nexe = "sshd"'
    assert any("can cost you the way in" in warning for warning in lint_text(etc, text))


@pytest.mark.parametrize("exe", ["bash", "python3", "perl5.36.0", "node", "sh", "java", "gawk"])
def test_interpreters(etc: Etc, exe: str) -> None:
    assert any("shares this rule" in w for w in lint_text(etc, f'[[app]]\npath = "/x/{exe}"'))
    assert not any(
        "shares this rule" in w for w in lint_text(etc, f'[[app]]\npath = "/x/{exe}"\nuser = 0')
    )


def test_replaced_rules_are_listed(etc: Etc) -> None:
    """Each replacement names both places and the selectors."""
    warnings = lint_text(etc, app('ports = ["1"]\n') + app('ports = ["2"]'))
    assert warnings == [
        'lone.toml:1:1: app: replaced whole by lone.toml:4: exe = "no-such-program"'
    ]


def test_a_shorter_command_line_that_comes_later_wins(etc: Etc) -> None:
    """Of equal rank the later: the longer one would never be used."""
    long, short = '[[app]]\ncmdline = "/x y z"\n', '[[app]]\ncmdline = "/x y"\n'
    reason = "can never match: lone.toml:3 matches all of it, and comes later"
    assert lint_text(etc, long + short) == [f"lone.toml:2:1: app.cmdline: {reason}"]
    assert lint_text(etc, short + long) == []
    assert lint_text(etc, '[[app]]\ncmdline = "/x yz"\n' + short) == []
    assert lint_text(etc, long + short + "user = 0\n") == []


def test_a_rule_for_a_whitelisted_program(etc: Etc) -> None:
    """[whitelist] programs comes first, unless the rule is strict."""
    text = '[whitelist]\nprograms = ["no-such-program"]\n'
    assert (
        "app: has no effect: [whitelist] programs at lone.toml:2"
        in lint_text(etc, text + app(""))[0]
    )
    assert lint_text(etc, text + app("strict = true")) == []
    assert lint_text(etc, text + '[[app]]\nexe = "other"') == []


def rule(untrusted_file: bool = False, **selectors: str) -> Rule:
    return Rule(
        Selectors(**selectors),  # type: ignore[arg-type]
        Where("x", 1),
        Actions(log=True),
        untrusted_file=untrusted_file,
    )


def executable(path: Path, content: bytes = b"\x7fELF", mode: int = 0o755) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def file_warnings(of: Rule, directory: Path) -> list[str]:
    return [f"{key}: {message}" for key, message in lint_file(of, (str(directory),))]


def test_a_path_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert file_warnings(rule(path=str(path)), tmp_path) == [
        f"path: {path} does not exist on this host"
    ]


def test_a_path_that_is_a_program(tmp_path: Path) -> None:
    assert file_warnings(rule(path=str(executable(tmp_path / "x"))), tmp_path) == []


@pytest.mark.parametrize(
    ("make", "warning"),
    [
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: executable(path, mode=0o644), "is not executable"),
        (lambda path: executable(path, b"#!/bin/sh\n"), "is a script, run by another file"),
    ],
)
def test_a_path_that_can_never_match(tmp_path: Path, make: object, warning: str) -> None:
    """The kernel sees the interpreter of a script, never the script."""
    path = tmp_path / "x"
    make(path)  # type: ignore[operator]
    [found] = file_warnings(rule(path=str(path)), tmp_path)
    assert "path: can never match" in found
    assert warning in found


def test_an_exe_that_is_a_link_to_another_name(tmp_path: Path) -> None:
    """python3 is python3.11 to the kernel."""
    executable(tmp_path / "tool1.2")
    (tmp_path / "tool").symlink_to("tool1.2")
    [found] = file_warnings(rule(exe="tool"), tmp_path)
    assert found == (
        f'exe: can never match: tool is a link to {tmp_path}/tool1.2; use exe = "tool1.2"'
    )
    (tmp_path / "other").mkdir()
    executable(tmp_path / "other" / "tool1.2").rename(tmp_path / "other" / "tool")
    (tmp_path / "tool").unlink()
    (tmp_path / "tool").symlink_to("other/tool")
    if os.geteuid() == 0:
        assert file_warnings(rule(exe="tool"), tmp_path) == []


def test_an_exe_that_is_a_script(tmp_path: Path) -> None:
    path = executable(tmp_path / "tool", b"#!/usr/bin/python3\n")
    [found] = file_warnings(rule(exe="tool"), tmp_path)
    assert found == f'exe: can never match: {path} is a script; use cmdline = "{path}"'


def test_an_exe_that_is_nowhere_is_nothing_to_talk_about(tmp_path: Path) -> None:
    assert file_warnings(rule(exe="tool"), tmp_path) == []


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_an_exe_whose_only_file_is_untrusted(tmp_path: Path, mode: int) -> None:
    """It gets the restrictions of the rule and not its permissions; that is worth saying."""
    path = executable(tmp_path / "tool", mode=mode)
    [found] = file_warnings(rule(exe="tool"), tmp_path)
    assert found.startswith(
        f"exe: {path} is not root's alone (owner {os.geteuid()}, mode {mode:04o})"
    )
    [found] = file_warnings(rule(cmdline=f"{path} --flag"), tmp_path)
    assert found.startswith(f"cmdline: {path} is not root's alone")
    assert file_warnings(rule(path=str(path)), tmp_path) == []
    assert file_warnings(rule(untrusted_file=True, exe="tool"), tmp_path) == []


def test_an_exe_of_which_one_file_is_trusted(tmp_path: Path) -> None:
    """/opt may hold another of that name: root's own gets the rule."""
    if os.geteuid() != 0:
        pytest.skip("only root can make root's files")
    (tmp_path / "a").mkdir()
    executable(tmp_path / "a" / "tool", mode=0o777)
    executable(tmp_path / "tool")
    directories = (str(tmp_path / "a"), str(tmp_path))
    assert list(lint_file(rule(exe="tool"), directories)) == []
