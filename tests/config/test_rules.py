# SPDX-License-Identifier: Apache-2.0
"""What becomes of an [[app]]: selectors, precedence, replacement, defaults, permissions."""

import os
import pwd
from pathlib import Path

import pytest

from aegis.policy.model import Actions, Mode, Selectors, Settings, Whitelist
from tests.config.conftest import Etc


def exes(etc: Etc, text: str) -> list[str | None]:
    etc.main(text)
    return [rule.selectors.exe for rule in etc.load().policy.rules]


def test_every_key_is_carried_over(etc: Etc) -> None:
    """Each key of policy-language.md has its place in the rule."""
    (etc.top / "scripts" / "x").touch()
    etc.main(
        """
        [[app]]
        exe = "telegraf"
        path = "/nonexistent/telegraf"
        cmdline = "/nonexistent/telegraf --config x"
        user = 12345
        unit = "telegraf.service"
        namespace = "any"
        untrusted_file = true
        ignore = true
        ports = ["8086"]
        remotes = ["bob.com:8086"]
        locals = []
        listen = ["1-2"]
        peers = ["10.0.0.0/8"]
        strict = true
        sockets = ["sctp", "raw", "packet", "icmp"]
        detent = 0
        actions = ["log", "script:x", "kill"]
        """
    )
    [rule] = etc.load().policy.rules
    assert rule.selectors == Selectors(
        "telegraf",
        "/nonexistent/telegraf",
        "/nonexistent/telegraf --config x",
        12345,
        "telegraf.service",
    )
    assert (rule.any_namespace, rule.untrusted_file, rule.ignore, rule.strict) == (True,) * 4
    lists = (rule.ports, rule.remotes, rule.locals, rule.listen, rule.peers)
    texts = [[entry.text for entry in entries or ()] for entries in lists]
    assert texts == [["8086"], ["bob.com:8086"], [], ["1-2"], ["10.0.0.0/8"]]
    assert rule.sockets == ("sctp", "raw", "packet", "icmp")
    assert (rule.detent, rule.actions) == (0, Actions(log=True, kill=True, scripts=("x",)))
    assert (rule.local, rule.remote) == (None, None)


def test_an_absent_key_is_not_an_empty_list(etc: Etc) -> None:
    """An empty list allows nothing; what was not written is left alone."""
    etc.main('[[app]]\nexe = "a"\nports = []\n[[app]]\nexe = "b"\nremotes = []\npeers = []')
    a, b = etc.load().policy.rules
    assert (a.ports, a.remotes, a.locals, a.listen, a.peers) == ((), None, None, None, None)
    assert (b.ports, b.remotes, b.peers) == (None, (), ())


def test_entries_and_rules_know_their_place(etc: Etc) -> None:
    path = etc.drop_in("x.toml", '\n[[app]]\nremotes = ["a.com",\n  "b.com"]\n')
    [rule] = etc.load().policy.rules
    assert (str(rule.where), rule.where.column) == (f"{path}:2", 1)
    assert [(str(e.where), e.where.column) for e in rule.remotes or ()] == [
        (f"{path}:3", 12),
        (f"{path}:4", 3),
    ]


def test_defaults_are_those_of_the_contract(etc: Etc) -> None:
    """An empty main file: strangers are logged and notified, the rest as in the example."""
    etc.main_file.write_text("")
    policy = etc.load().policy
    assert policy.settings == Settings(
        mode=Mode.ENFORCE,
        detent=86400,
        default_actions=Actions(log=True, notify=True),
        unconfigured_actions=Actions(log=True, notify=True),
        inbound=True,
        sever_existing=False,
        deny_socket_fds=False,
        tamper_guard=False,
        script_timeout=30,
        script_jobs=4,
        script_queue=1000,
        script_user=None,
        history_days=90,
        history_rows=100_000,
        metrics_file=None,
        never_kill=(),
        kill_tree=False,
        kill_budget=20,
    )
    assert (policy.whitelist, policy.rules) == (Whitelist(resolvers=True), ())


@pytest.mark.parametrize("user", ['"nobody"', "65534", '"65534"'])
def test_script_user_is_a_user_of_this_host(etc: Etc, user: str) -> None:
    """By name or number; one that is not there is an error, and no script runs as root instead."""
    etc.main(script_user=user)
    assert etc.load().policy.settings.script_user == 65534


def test_missing_actions_are_the_default_and_an_empty_list_is_silence(etc: Etc) -> None:
    """Also when [global] of a later file says what the default is."""
    etc.main('[[app]]\nexe = "a"\n[[app]]\nexe = "b"\nactions = []')
    etc.drop_in("z.toml", '[global]\ndefault_actions = ["block", "log"]')
    a, b = etc.load().policy.rules
    assert a.actions == Actions(log=True, block=True)
    assert (b.actions, b.actions.reports) == (Actions(), False)


def test_detent_of_global_is_the_default(etc: Etc) -> None:
    etc.main('[[app]]\nexe = "a"\n[[app]]\nexe = "b"\ndetent = 0', detent="7")
    assert [rule.detent for rule in etc.load().policy.rules] == [7, 0]


def test_a_file_may_hold_any_number_of_apps(etc: Etc) -> None:
    etc.drop_in("many.toml", "".join(f'[[app]]\nexe = "p{n}"\n' for n in range(300)))
    assert len(etc.load().policy.rules) == 300


def test_more_selectors_win(etc: Etc) -> None:
    """Rules ascend in precedence: the last that matches governs."""
    text = """
        [[app]]
        exe = "three"
        user = 1
        unit = "a.service"
        [[app]]
        exe = "two"
        user = 1
        [[app]]
        exe = "one"
    """
    assert exes(etc, text) == ["one", "two", "three"]


def test_path_over_cmdline_over_exe(etc: Etc) -> None:
    """Of equal number the kind decides, wherever it stands; user and unit come last."""
    etc.main(
        """
        [[app]]
        path = "/nonexistent/a"
        [[app]]
        cmdline = "/nonexistent/a x"
        [[app]]
        exe = "a"
        [[app]]
        user = 0
        [[app]]
        unit = "a.service"
        """
    )
    rules = etc.load().policy.rules
    kinds = [next(k for k in vars(r.selectors) if vars(r.selectors)[k] is not None) for r in rules]
    assert kinds == ["user", "unit", "exe", "cmdline", "path"]


def test_path_and_exe_rank_by_the_strongest_first(etc: Etc) -> None:
    """path + user outranks cmdline + exe; path + cmdline outranks path + exe."""
    etc.main(
        """
        [[app]]
        path = "/nonexistent/a"
        cmdline = "a"
        [[app]]
        path = "/nonexistent/a"
        exe = "a"
        [[app]]
        path = "/nonexistent/a"
        user = 0
        [[app]]
        cmdline = "a"
        exe = "a"
        """
    )
    lines = [rule.where.line for rule in etc.load().policy.rules]
    assert lines == [14, 11, 8, 5]


def test_of_equal_rank_the_later_wins(etc: Etc) -> None:
    """Files in order, then position in the file."""
    etc.main('[[app]]\nexe = "a"\n[[app]]\nexe = "b"')
    etc.drop_in("20-x.toml", '[[app]]\nexe = "c"')
    etc.drop_in("10-x.toml", '[[app]]\nexe = "d"')
    assert [rule.selectors.exe for rule in etc.load().policy.rules] == ["a", "b", "d", "c"]


def test_modifiers_do_not_count_for_precedence(etc: Etc) -> None:
    """``namespace`` and ``untrusted_file`` are no selectors: the later rule wins."""
    text = '[[app]]\nexe = "a"\nuntrusted_file = true\nnamespace = "any"\n[[app]]\nexe = "b"'
    assert exes(etc, text) == ["a", "b"]


def test_the_later_replaces_the_earlier_whole(etc: Etc) -> None:
    """No field of the earlier survives; ``check`` lists what was replaced by what."""
    old = etc.drop_in("10-nc.toml", '[[app]]\nports = ["1"]\nstrict = true\nactions = ["kill"]')
    new = etc.drop_in("20-nc.toml", '[[app]]\nremotes = ["2"]')
    loaded = etc.load()
    [rule] = loaded.policy.rules
    assert (rule.ports, rule.strict, rule.actions) == (None, False, Actions(log=True, notify=True))
    [gone] = loaded.replaced
    assert (str(gone.old), str(gone.new)) == (f"{old}:1", f"{new}:1")
    assert gone.selectors == Selectors(exe="nc")


def test_replacing_takes_the_place_of_the_later(etc: Etc) -> None:
    """a, b, a again: the second a comes after b."""
    assert exes(etc, '[[app]]\nexe="a"\n[[app]]\nexe="b"\n[[app]]\nexe="a"') == ["b", "a"]


def test_other_selectors_are_another_rule(etc: Etc) -> None:
    """Nothing is replaced unless all selectors are the same."""
    etc.main(
        '[[app]]\nexe = "a"\n[[app]]\nexe = "a"\nuser = 0\n[[app]]\nuser = 0\n[[app]]\npath = "/a"'
    )
    loaded = etc.load()
    assert (len(loaded.policy.rules), loaded.replaced) == (4, ())


def test_selectors_that_mean_the_same_are_the_same(etc: Etc) -> None:
    """A user by name and by uid; a path and a link to it."""
    real = etc.top / "real"
    real.touch()
    (etc.top / "link").symlink_to(real)
    etc.main(
        f'[[app]]\nuser = "root"\n[[app]]\nuser = 0\n'
        f'[[app]]\npath = "{real}"\n[[app]]\npath = "{etc.top}/link"\n'
    )
    loaded = etc.load()
    assert [rule.selectors for rule in loaded.policy.rules] == [
        Selectors(user=0),
        Selectors(path=str(real)),
    ]
    assert len(loaded.replaced) == 2


def test_a_link_in_a_path_is_resolved_and_said(etc: Etc) -> None:
    """The kernel sees files, not links: the file is what the rule is about."""
    (etc.top / "real").mkdir()
    (etc.top / "link").symlink_to("real")
    etc.main(f'[[app]]\npath = "{etc.top}/link/x"\n[[app]]\npath = "{etc.top}/real/y"')
    assert [rule.selectors.path for rule in etc.load().policy.rules] == [
        f"{etc.top}/real/x",
        f"{etc.top}/real/y",
    ]
    assert etc.warnings() == [
        'aegis.toml:5:1: app.path: "link/x" goes through a symbolic link; "real/x" is meant'
    ]


def test_a_link_in_the_whitelist_is_resolved_and_said(etc: Etc) -> None:
    (etc.top / "link").symlink_to("real")
    etc.main(f'[whitelist]\nprograms = ["systemd", "{etc.top}/link"]')
    programs = etc.load().policy.whitelist.programs
    assert [program for program, _ in programs] == ["systemd", f"{etc.top}/real"]
    assert [where.column for _, where in programs] == [13, 24]
    assert len(etc.warnings()) == 1


def test_doubled_slashes_are_no_link(etc: Etc) -> None:
    etc.main('[[app]]\npath = "//nonexistent///a/./b"')
    assert etc.load().policy.rules[0].selectors.path == "/nonexistent/a/b"
    assert etc.warnings() == []


def test_kernel_threads_have_a_name_that_is_no_path(etc: Etc) -> None:
    """It is not looked for in the directory that ``check`` happens to run in."""
    etc.main('[[app]]\npath = "[kernel]"\n[whitelist]\nprograms = ["[kernel]"]')
    policy = etc.load().policy
    assert policy.rules[0].selectors == Selectors(path="[kernel]")
    assert [program for program, _ in policy.whitelist.programs] == ["[kernel]"]
    assert etc.warnings() == []


def test_a_path_that_is_too_long_once_resolved(etc: Etc) -> None:
    long = etc.top / ("d" * 200)
    long.mkdir()
    (etc.top / "link").symlink_to(long)
    etc.main(f'[[app]]\npath = "{etc.top}/link/{"f" * 60}"')
    assert "has more than 255 bytes" in "\n".join(etc.errors())


@pytest.mark.parametrize("text", ['"root"', '"0"', "0"])
def test_user_by_name_or_uid(etc: Etc, text: str) -> None:
    etc.main(f"[[app]]\nuser = {text}")
    assert etc.load().policy.rules[0].selectors == Selectors(user=0)


def test_an_unknown_uid_is_fine_and_an_unknown_name_is_not(etc: Etc) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    etc.main(f'[[app]]\nuser = 4000000000\n[[app]]\nuser = "{name}x"')
    assert etc.errors() == [
        f'aegis.toml:7:1: app.user: there is no user "{name}x"; did you mean "{name}"?'
    ]


@pytest.mark.parametrize("scope", ["local", "remote"])
@pytest.mark.parametrize("value", [True, False])
def test_a_permission_and_a_list_of_the_same_scope(etc: Etc, scope: str, value: bool) -> None:
    """An error that says which to drop."""
    etc.main(f'[[app]]\nexe = "a"\n{scope} = {str(value).lower()}\n{scope}s = ["1"]')
    [error] = etc.errors()
    assert f"app.{scope}" in error
    assert f"drop {scope} to keep the list, or drop {scope}s" in error


@pytest.mark.parametrize(("scope", "other"), [("local", "remotes"), ("remote", "locals")])
def test_a_permission_and_a_list_of_the_other_scope(etc: Etc, scope: str, other: str) -> None:
    etc.main(f'[[app]]\nexe = "a"\n{scope} = false\n{other} = ["1"]')
    assert getattr(etc.load().policy.rules[0], scope) is False


def test_a_permission_beside_ports_is_no_contradiction(etc: Etc) -> None:
    """``ports`` is of both scopes: the founding example has both in one table."""
    etc.main('[[app]]\nexe = "a"\nports = ["8086"]\nlocal = false')
    [rule] = etc.load().policy.rules
    assert (rule.local, len(rule.ports or ())) == (False, 1)


@pytest.mark.parametrize("word", ["block", "kill"])
def test_allow_contradicts_block_and_kill(etc: Etc, word: str) -> None:
    etc.main(f'[[app]]\nexe = "a"\nactions = ["allow", "log", "{word}"]')
    [error] = etc.errors()
    assert error.endswith(f'app.actions: "allow" contradicts "{word}"; drop one of them')
    etc.main(default_actions=f'["{word}", "allow"]')
    assert "global.default_actions" in etc.errors()[0]


def test_allow_with_log_is_fine(etc: Etc) -> None:
    etc.main('[[app]]\nexe = "a"\nactions = ["allow", "log"]')
    assert etc.load().policy.rules[0].actions == Actions(allow=True, log=True)


def test_a_script_that_is_not_there_is_a_warning(etc: Etc) -> None:
    (etc.top / "scripts" / "here").touch()
    etc.main('[[app]]\nexe = "a"\nactions = ["script:here", "script:gone"]')
    assert etc.warnings() == ['aegis.toml:6:27: app.actions: there is no script "gone" in scripts']
    etc.main(unconfigured_actions='["script:gone"]')
    assert "global.unconfigured_actions: there is no script" in etc.warnings()[0]


def test_places_of_keys_are_kept_for_warnings(etc: Etc) -> None:
    etc.main('[[app]]\nexe = "a"\nstrict = true')
    loaded = etc.load()
    where = loaded.policy.rules[0].where
    assert loaded.place(where, "strict").line == 6
    assert loaded.place(where, "actions") == where


def test_paths_of_the_host_are_not_needed(etc: Etc) -> None:
    """A policy may be checked on another machine than it is for."""
    assert not Path("/nonexistent").exists()
    etc.main('[[app]]\npath = "/nonexistent/x"')
    assert etc.warnings() == []
