# SPDX-License-Identifier: Apache-2.0
"""The errors of keys and types: each says what to write instead."""

import pytest

from aegis.config.limits import APPS, ENTRIES, PROGRAMS
from aegis.config.problem import PolicyError
from tests.config.conftest import Etc

APP = [
    ('prots = ["1"]', 'app.prots: is not a key of [[app]]; did you mean "ports"?'),
    ('port = "1"', 'app.port: is not a key of [[app]]; did you mean "ports"?'),
    ("Exe = 1", 'app.Exe: is not a key of [[app]]; did you mean "exe"?'),
    ("zzz = 1", "app.zzz: is not a key of [[app]]"),
    ('"a\\nb" = 1', "app.'a\\nb': is not a key of [[app]]"),
    ("mode = 1", "app.mode: is not a key of [[app]], but of [global]"),
    ("exe = 7", 'app.exe: 7 is a number; write "7"'),
    ("exe = true", "app.exe: must be a string, in quotes"),
    ('exe = ""', 'app.exe: "" is empty; a base name must stand here'),
    ('exe = "/bin/nc"', 'app.exe: "/bin/nc" is a path; write path = "/bin/nc", or only the base'),
    ('exe = "a\\u0000"', "app.exe: a base name cannot hold a NUL character"),
    (f'exe = "{"a" * 64}"', "app.exe: has 64 bytes; a base name may have 63 at most"),
    (f'exe = "{"é" * 32}"', "app.exe: has 64 bytes; a base name may have 63 at most"),
    ('path = "bin/nc"', 'app.path: "bin/nc" does not begin with "/"; write exe for a base name'),
    ('exe = "[kernel]"', 'app.exe: a file could be called "[kernel]"; write path = "[kernel]"'),
    ('path = "[kernels]"', 'app.path: "[kernels]" does not begin with "/"; write exe for a base'),
    (f'path = "/{"a" * 255}"', "app.path: has 256 bytes; a path may have 255 at most"),
    (f'cmdline = "{"a" * 255}"', "app.cmdline: has 255 bytes; a command line to look for may have"),
    (f'unit = "{"a" * 127}"', "app.unit: has 127 bytes; a unit may have 126 at most"),
    ('unit = "/system.slice/a.service"', "app.unit: "),
    ("user = -1", "app.user: -1 is not a uid"),
    ("user = 4294967295", "app.user: 4294967295 is not a uid"),
    ("user = true", "app.user: must be a user name or a uid"),
    ('user = ""', 'app.user: "" is empty'),
    ('ports = "80"', 'app.ports: must be a list; write ["80"]'),
    ("ports = 80", 'app.ports: must be a list; write ["80"]'),
    ("ports = { a = 1 }", 'app.ports: must be a list; write ["..."]'),
    ("ports = [80]", 'app.ports: 80 is a number; write "80"'),
    ("ports = [true]", "app.ports: must be a string, in quotes"),
    ('ports = [["1"]]', "app.ports: must be a string, in quotes"),
    ("remotes = [10.0]", 'app.remotes: 10.0 is a number; write "10.0"'),
    ("remotes = [1979-05-27]", "app.remotes: must be a string, in quotes"),
    ('ports = ["10.0.0.1"]', 'app.ports: "10.0.0.1": only ports and ranges may stand here'),
    ('listen = ["10.0.0.1:80"]', 'app.listen: "10.0.0.1:80": only ports and ranges may stand'),
    ('peers = ["bob.com"]', 'app.peers: "bob.com" is a host name; only addresses may stand here'),
    ('remote = "yes"', "app.remote: must be true or false, without quotes"),
    ("ignore = 1", "app.ignore: must be true or false, without quotes"),
    ("detent = -1", "app.detent: must be at least 0"),
    ("detent = 1.5", "app.detent: must be a whole number, without quotes"),
    ('detent = "0"', "app.detent: must be a whole number, without quotes"),
    ("detent = true", "app.detent: must be a whole number, without quotes"),
    ("detent = 99999999999", "app.detent: must be at most 315360000"),
    ('namespace = "all"', 'app.namespace: "all" is not one of "host", "any"'),
    ('sockets = ["scpt"]', 'app.sockets: "scpt" is not one of "sctp", '),
    ('actions = ["kil"]', 'app.actions: "kil" is not one of "log", '),
    ('actions = ["script:"]', 'app.actions: "script:": write the file name of one script'),
    ('actions = ["script:../x"]', 'app.actions: "script:../x": write the file name of one script'),
    ('actions = ["script:NAME", "script"]', 'app.actions: "script" is not one of '),
]


@pytest.mark.parametrize(("text", "error"), APP)
def test_app(etc: Etc, text: str, error: str) -> None:
    """A wrong case for every key of [[app]]."""
    [found] = etc.lone_errors(f"[[app]]\n{text}")
    assert found.startswith("lone.toml:2:")
    assert found.split(": ", 1)[1].startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("detnt = 1", 'global.detnt: is not a key of [global]; did you mean "detent"?'),
        ('exe = "x"', "global.exe: is not a key of [global], but of [[app]]"),
        ("ips = []", "global.ips: is not a key of [global], but of [whitelist]"),
        (
            'mode = "enforced"',
            'global.mode: "enforced" is not one of "enforce", "observe"; did you',
        ),
        ('include_dirs = "/etc"', 'global.include_dirs: must be a list; write ["/etc"]'),
        ('include_dirs = ["etc"]', 'global.include_dirs: "etc" must be an absolute path'),
        ('script_dirs = ["/a/../b"]', 'global.script_dirs: "/a/../b" must be an absolute path'),
        ('default_actions = ["x"]', 'global.default_actions: "x" is not one of'),
        ("inbound = 0", "global.inbound: must be true or false"),
        ('sever_existing = "yes"', "global.sever_existing: must be true or false"),
        ("script_timeout = 0", "global.script_timeout: must be at least 1"),
        ("script_jobs = 0", "global.script_jobs: must be at least 1"),
        ("script_queue = 0", "global.script_queue: must be at least 1"),
        ('never_kill = "sshd"', 'global.never_kill: must be a list; write ["sshd"]'),
        ('never_kill = ["bin/x"]', 'global.never_kill: "bin/x" does not begin with "/"'),
        ("kill_budget = -1", "global.kill_budget: must be at least 0"),
        ("kill_tree = 1", "global.kill_tree: must be true or false"),
        ('script_user = "noboddy"', 'global.script_user: there is no user "noboddy"; did you mean'),
        ("script_user = 4294967294", 'global.script_user: there is no user "4294967294"'),
        ("script_user = true", "global.script_user: must be a user name or a uid"),
    ],
)
def test_global(etc: Etc, text: str, error: str) -> None:
    [found] = etc.lone_errors(f"[global]\n{text}")
    assert found.split(": ", 1)[1].startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('port = ["1"]', 'whitelist.port: is not a key of [whitelist]; did you mean "ports"?'),
        ('ips = ["10.0.0.1/8"]', 'whitelist.ips: "10.0.0.1/8" has host bits set'),
        ('ips = ["bob.com"]', 'whitelist.ips: "bob.com" is a host name'),
        ('ips = ["10.0.0.0/8:443"]', 'whitelist.ips: "10.0.0.0/8:443": no port may stand here'),
        ('ports = ["10.0.0.0/8"]', 'whitelist.ports: "10.0.0.0/8": only ports'),
        ('programs = ["bin/x"]', 'whitelist.programs: "bin/x" does not begin with "/"'),
        ("programs = [1]", 'whitelist.programs: 1 is a number; write "1"'),
        ("resolvers = 53", "whitelist.resolvers: must be true or false"),
    ],
)
def test_whitelist(etc: Etc, text: str, error: str) -> None:
    [found] = etc.lone_errors(f"[whitelist]\n{text}")
    assert found.split(": ", 1)[1].startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[globl]", '1:2: globl: there is no such table; did you mean "global"?'),
        ("[[apps]]", '1:3: apps: there is no such table; did you mean "app"?'),
        (
            "[zzz]",
            "1:2: zzz: there is no such table; there are [global], [whitelist], [notify], [[app]]",
        ),
        ('exe = "x"', "1:1: exe: stands outside of any table; write [[app]] above it"),
        ("ips = []", "1:1: ips: stands outside of any table; write [whitelist] above it"),
        (
            "ports = []",
            "1:1: ports: stands outside of any table; write [[app]] or [whitelist] above it",
        ),
        ("[app]", "1:2: app: write [[app]], with two brackets: there may be several"),
        ("app = [1]", "1:1: app: write [[app]], with two brackets: there may be several"),
        ("[[global]]", "1:3: global: must be one table; write [global]"),
        ("whitelist = 1", "1:1: whitelist: must be one table; write [whitelist]"),
    ],
)
def test_tables(etc: Etc, text: str, error: str) -> None:
    [found] = etc.lone_errors(text)
    assert found == f"lone.toml:{error}"


def test_the_message_of_the_issue(etc: Etc) -> None:
    [error] = etc.lone_errors('[[app]]\nports = ["port 8086"]')
    reason = '"port 8086" is not a port or range, such as "8086" or "8000-8100"'
    assert error.startswith(f"lone.toml:2:10: app.ports: {reason}")


def test_one_wrong_key_hides_no_other(etc: Etc) -> None:
    """All of one table, of all tables, in the order of the lines."""
    text = (
        '[[app]]\nprots = []\nports = ["0", 1]\nuser = true\n[[app]]\nexe = 1\n[global]\nmode = 1'
        '\n[[app]]\nuser = "no such user"\nlocal = 1'
    )
    places = [error.split(": ")[0] for error in etc.lone_errors(text)]
    wanted = ("2:1", "3:10", "3:15", "4:1", "6:1", "8:1", "10:1", "11:1")
    assert places == [f"lone.toml:{place}" for place in wanted]


def test_the_text_of_the_error_is_its_errors(etc: Etc) -> None:
    """Warnings do not pose as reasons for a refusal; they are kept beside them."""
    with pytest.raises(PolicyError) as caught:
        etc.lone('[[app]]\nuser = "no such user"\nunit = "nginx"\n[[app]]\nexe = ""')
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["app.user", "app.exe"]
    assert [p.key for p in caught.value.problems] == ["app.user", "app.unit", "app.exe"]


def test_the_limit_of_rules(etc: Etc) -> None:
    """As many as the limit are taken; one more is an error that says the limit."""
    text = "".join(f'[[app]]\nexe = "p{n}"\n' for n in range(APPS))
    assert len(etc.lone(text).policy.rules) == APPS
    [error] = etc.lone_errors(text + '[[app]]\nexe = "q"')
    assert error == f"lone.toml:{2 * APPS + 1}:1: app: {APPS + 1} rules; the limit is {APPS}"


def test_replaced_rules_do_not_count_for_the_limit(etc: Etc) -> None:
    text = "".join(f'[[app]]\nexe = "p{n % 10}"\n' for n in range(APPS + 10))
    assert len(etc.lone(text).policy.rules) == 10


def test_the_limit_of_entries(etc: Etc) -> None:
    line = "ports = [" + '"1",' * (ENTRIES // 2) + "]\n"
    text = f'[[app]]\nexe = "a"\n{line}[[app]]\nexe = "b"\n{line}'
    assert etc.lone(text).policy.rules
    [error] = etc.lone_errors(text + '[whitelist]\nports = ["1"]')
    assert error.endswith(f": {ENTRIES + 1} entries in all lists; the limit is {ENTRIES}")


def test_the_limit_of_programs(etc: Etc) -> None:
    programs = [f'"p{n}"' for n in range(PROGRAMS)]
    assert etc.lone(f"[whitelist]\nprograms = [{','.join(programs)}]").policy
    [error] = etc.lone_errors(f"[whitelist]\nprograms = [{','.join([*programs, programs[0]])}]")
    assert error.endswith(f"{PROGRAMS + 1} programs; the limit is {PROGRAMS}")
