# SPDX-License-Identifier: Apache-2.0
"""Which drop-ins are read, in which order, and what each may say."""

from pathlib import Path

import pytest

from aegis.config.document import name_of
from aegis.config.files import order_drop_ins
from aegis.config.load import load_lone
from aegis.policy.model import Mode
from tests.config.conftest import Etc


def test_order_is_of_the_file_name_over_all_directories() -> None:
    """The directory counts only between equal names, and then as listed; bytes, no locale."""
    found = [("/b", "20-x.toml"), ("/b", "B.toml"), ("/a", "a.toml"), ("/a", "20-x.toml")]
    found += [("/a", "10-z.toml"), ("/a", "é.toml")]
    assert order_drop_ins(found).files == (
        "/a/10-z.toml",
        "/b/20-x.toml",
        "/a/20-x.toml",
        "/b/B.toml",
        "/a/a.toml",
        "/a/é.toml",
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".a.toml", "dot"),
        (".toml", "dot"),
        ("a.toml~", "backup"),
        ("a~.toml", "backup"),
        ("a.toml.dpkg-new", "package manager"),
        ("a.dpkg-old.toml", "package manager"),
        ("a.toml.rpmsave", "package manager"),
        ("a.toml.bak", "does not end in .toml"),
        ("a.conf", "does not end in .toml"),
        ("README", "does not end in .toml"),
        ("a.TOML", "does not end in .toml"),
    ],
)
def test_leftovers_are_skipped_and_said(etc: Etc, name: str, reason: str) -> None:
    """What editors and package managers leave behind is not read, and ``check`` says so."""
    path = etc.drop_in(name, "this is not TOML")
    loaded = etc.load()
    assert loaded.files == (str(etc.main_file),)
    [(skipped, why)] = loaded.skipped
    assert skipped == str(path)
    assert reason in why


def test_ordinary_names_are_read(etc: Etc) -> None:
    for name in ("telegraf.toml", "zz-telegraf.toml", "10-a.b.toml", "rpmbuild.toml", "dpkg.toml"):
        etc.drop_in(name, "")
    assert len(etc.load().files) == 6
    assert etc.load().skipped == ()


def test_a_directory_that_is_missing_is_a_warning(etc: Etc) -> None:
    etc.drop_ins.rmdir()
    assert etc.warnings() == ["aegis.toml:2:1: global.include_dirs: aegis.d does not exist"]


def test_a_directory_named_twice_is_read_once(etc: Etc) -> None:
    etc.drop_in("nc.toml", "[[app]]")
    etc.main_file.write_text(f'[global]\ninclude_dirs = ["{etc.drop_ins}", "{etc.drop_ins}/"]')
    loaded = etc.load()
    assert len(loaded.files) == 2
    assert loaded.replaced == ()


def test_the_main_file_is_not_its_own_drop_in(etc: Etc) -> None:
    etc.main_file.write_text(f'[global]\ninclude_dirs = ["{etc.top}"]')
    loaded = etc.load()
    assert loaded.files == (str(etc.main_file),)
    assert (str(etc.main_file), "the main file itself") in loaded.skipped


def test_a_directory_called_like_a_drop_in_is_an_error(etc: Etc) -> None:
    (etc.drop_ins / "a.toml").mkdir()
    [error] = etc.errors()
    assert error.startswith("a.toml:1:1: a.toml is a directory")


@pytest.mark.parametrize(
    ("file", "program"),
    [
        ("telegraf.toml", "telegraf"),
        ("zz-telegraf.toml", "telegraf"),
        ("10-telegraf.toml", "telegraf"),
        ("wazuh-agentd.toml", "wazuh-agentd"),
        ("zz-wazuh-agentd.toml", "wazuh-agentd"),
        ("10-zz-top.toml", "zz-top"),
        ("zzz-top.toml", "zzz-top"),
        ("1a-top.toml", "1a-top"),
        ("python3.11.toml", "python3.11"),
        ("٣-x.toml", "٣-x"),
    ],
)
def test_selector_from_the_file_name(etc: Etc, file: str, program: str) -> None:
    """A prefix of digits, or ``zz``, up to the first ``-`` is dropped; once."""
    etc.drop_in(file, 'app = [{ports = ["1"]}]')
    [rule] = etc.load().policy.rules
    assert rule.selectors.exe == program
    assert (rule.selectors.count(), name_of(file)) == (1, program)


def test_file_that_is_named_after_nothing(etc: Etc) -> None:
    etc.drop_in("zz-.toml", "[[app]]")
    [error] = etc.errors()
    assert error.startswith("zz-.toml:1:1: app: has no selector, and the file is named after no")


def test_no_selector_in_the_main_file(etc: Etc) -> None:
    """The main file is named after no program."""
    etc.main('[[app]]\nports = ["1"]')
    assert etc.errors() == [
        "aegis.toml:4:1: app: needs a selector: exe, path, cmdline, user or unit"
    ]


def test_a_modifier_is_no_selector(etc: Etc) -> None:
    """``namespace`` and ``untrusted_file`` say how to match, not whom."""
    etc.main('[[app]]\nnamespace = "any"\nuntrusted_file = true')
    assert "needs a selector" in etc.errors()[0]


def test_any_table_may_stand_in_any_file(etc: Etc) -> None:
    """A later scalar replaces an earlier one; [whitelist] lists add up."""
    etc.main(
        '[whitelist]\nips = ["10.0.0.0/8"]\nports = ["80"]\nprograms = ["a"]',
        detent="1",
        mode='"enforce"',
    )
    etc.drop_in(
        "10-a.toml", '[whitelist]\nips = ["192.0.2.0/24"]\nresolvers = false\n[global]\ndetent = 2'
    )
    etc.drop_in(
        "20-b.toml", '[global]\nmode = "observe"\n[whitelist]\nports = ["443"]\nprograms = ["b"]'
    )
    etc.drop_in("30-c.toml", "[global]\ndeny_socket_fds = true")
    policy = etc.load().policy
    assert policy.settings.detent == 2
    assert policy.settings.deny_socket_fds is True
    assert policy.settings.mode is Mode.OBSERVE
    assert [e.text for e in policy.whitelist.ips] == ["10.0.0.0/8", "192.0.2.0/24"]
    assert [e.text for e in policy.whitelist.ports] == ["80", "443"]
    assert [program for program, _ in policy.whitelist.programs] == ["a", "b"]
    assert policy.whitelist.resolvers is False


def test_a_later_list_of_actions_replaces_the_earlier(etc: Etc) -> None:
    """Only [whitelist] adds up: what you read last is in force."""
    etc.main(default_actions='["log"]', unconfigured_actions='["notify"]')
    etc.drop_in("a.toml", '[global]\ndefault_actions = ["kill"]\n[[app]]')
    policy = etc.load().policy
    assert policy.settings.default_actions.names() == ("kill",)
    assert policy.settings.unconfigured_actions.names() == ("notify",)
    assert policy.rules[0].actions.names() == ("kill",)


def test_only_the_main_file_names_directories(etc: Etc) -> None:
    etc.drop_in("a.toml", '[global]\ninclude_dirs = ["/etc"]')
    assert etc.errors() == [
        "a.toml:2:1: global.include_dirs: only the main file names directories of drop-ins;"
        " move it there"
    ]


def test_problems_of_all_files_are_told_at_once(etc: Etc) -> None:
    """Also the ones behind a file that is no TOML at all."""
    etc.main("[[app]]\nprots = []")
    etc.drop_in("a.toml", "[[app]\n")
    etc.drop_in("b.toml", '[[app]]\nports = ["0"]\nremotes = [1]\nuser = true')
    assert [error.split(": ")[0] for error in etc.errors()] == [
        "a.toml:1:6",
        "aegis.toml:5:1",
        "b.toml:2:10",
        "b.toml:3:12",
        "b.toml:4:1",
    ]


def test_a_lone_file_is_a_drop_in_of_any_name(etc: Etc) -> None:
    """``aegis check FILE`` needs no ending, owner or directory."""
    assert etc.lone("[[app]]", "draft").policy.rules[0].selectors.exe == "draft"
    assert etc.lone("[[app]]", "zz-nc.toml").policy.rules[0].selectors.exe == "nc"


def test_a_lone_main_file_is_told_from_a_drop_in(etc: Etc) -> None:
    """It names directories; they are not read, and that is said."""
    text = f'[global]\ninclude_dirs = ["{etc.drop_ins}"]\n'
    etc.drop_in("bad.toml", "not TOML")
    assert etc.lone(text).skipped == (
        (str(etc.drop_ins), "one file is checked alone, without drop-ins"),
    )
    assert "needs a selector" in etc.lone_errors(text + "[[app]]")[0]
    assert "needs a selector" in etc.lone_errors("[[app]]", "aegis.toml")[0]


def test_a_lone_file_of_anybody(etc: Etc) -> None:
    path = etc.drop_in("nc.toml", "[[app]]")
    path.chmod(0o666)
    link = etc.top / "link.toml"
    link.symlink_to(path)
    assert load_lone(link).policy.rules[0].selectors.exe == "link"


def test_a_missing_file_is_an_error(etc: Etc) -> None:
    etc.main_file.unlink()
    assert etc.errors() == ["aegis.toml:1:1: cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"x = \xff", "x.toml:1:5: not UTF-8: byte 0xff"),
        (b"a = 1\n\xc3\xa9 = \xed", "x.toml:2:5: not UTF-8: byte 0xed"),
        (b"\xef\xbb\xbfa = 1", "x.toml:1:1: begins with a byte order mark; save it without"),
        (b"a = ", "x.toml:1:5: not TOML: invalid value"),
        (b"a = 1\na = 2", "x.toml:2:6: not TOML: cannot overwrite a value at the end of the file"),
        (
            b'[[app]]\nexe = telegraf\nports = ["1"]',
            "x.toml:2:7: not TOML: invalid value; text must stand in quotes, as in exe",
        ),
        (b'exe: "nc"', "x.toml:1:4: not TOML: expected '=' after a key in a key/value pair; write"),
        (b'a = "\n', "x.toml:1:6: not TOML: illegal character"),
        (b"a = " + b"9" * 5000, "x.toml:1:"),
        (b"a = " + b"[" * 100_000, "x.toml:1:1: nested too deeply"),
    ],
)
def test_text_that_is_no_toml(etc: Etc, content: bytes, error: str) -> None:
    """Each has a place, and the mistakes made most have a hint."""
    (etc.drop_ins / "x.toml").write_bytes(content)
    [found] = etc.errors()
    assert found.startswith(error)


def test_windows_line_ends_do_not_move_places(etc: Etc) -> None:
    (etc.drop_ins / "x.toml").write_bytes(b'[[app]]\r\nexe = "a"\r\nports = [\r\n  "0",\r\n]\r\n')
    assert etc.errors()[0].startswith("x.toml:4:3: app.ports:")


def test_names_of_files_may_be_any_bytes(etc: Etc) -> None:
    """A name that is no UTF-8 is a program like any other."""
    path = Path(str(etc.drop_ins) + "/a\udcff.toml")
    path.write_text("[[app]]")
    assert etc.load().policy.rules[0].selectors.exe == "a\udcff"
