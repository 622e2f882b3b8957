# SPDX-License-Identifier: Apache-2.0
"""Which rule a running program gets."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.conftest import Agents
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY
from tests.kernel.workshop import Workshop

WRAPPER = """\
#!/usr/bin/python3
import errno, socket, sys
code = socket.socket().connect_ex(("127.0.0.1", int(sys.argv[-1])))
print(errno.errorcode[code] if code else "OK")
"""

# Rules that allow 8086 to be reached have ports = ["8086"]; where two compete, the
# other one allows 8087 instead, so which one won is seen from outside.
POLICY = """
[global]
detent = 0
default_actions = ["log", "block"]

[[app]]
path = "{bin}/by-path"
ports = ["8086"]

[[app]]
path = "{bin}/link-to-tool"
ports = ["8086"]

[[app]]
exe = "hard-linked"
ports = ["8086"]

[[app]]
cmdline = "{bin}/wrapper.py"
ports = ["8086"]

[[app]]
cmdline = "{bin}/by-argument tcp 127.0.0.1"
ports = ["8086"]

[[app]]
exe = "by-user"
user = "{nobody}"
ports = ["8086"]

[[app]]
exe = "by-unit"
unit = "telegraf.service"
ports = ["8086"]

[[app]]
unit = "whole.service"
ports = ["8086"]

[[app]]
exe = "ranked"
user = "{nobody}"
ports = ["8087"]

[[app]]
path = "{bin}/ranked"
ports = ["8086"]

[[app]]
exe = "ranked"
ports = ["9"]

[[app]]
exe = "replaced"
ports = ["8087"]
actions = ["log"]

[[app]]
exe = "replaced"
ports = ["8086"]

[[app]]
exe = "ignored"
ignore = true

[[app]]
exe = "mute"
ports = []
actions = []
"""


@dataclass(frozen=True)
class House:
    agent: Agent
    policy: PolicyFile
    bin: Path


@pytest.fixture(scope="module")
def house(workshop: Workshop, servers: Servers, agents: Agents) -> House:
    servers.open(8086, 8087)
    tool = workshop.install("tool")
    (workshop.bin / "link-to-tool").symlink_to(tool)
    workshop.script("wrapper.py", WRAPPER)
    text = POLICY.format(bin=workshop.bin, nobody=NOBODY)
    return House(*agents.share(text), workshop.bin)


def rule_of(house: House, pid: int, since: int) -> str:
    """The rule named by the one event of *pid*."""
    [event] = house.agent.settled_events(since, process__pid=pid)
    name = field(event, "rule.name")
    assert isinstance(name, str)
    return name


def test_path_governs_that_file(house: House, workshop: Workshop, programs: Programs) -> None:
    """The rule of a path is the one the kernel applies and the event names."""
    by_path, since = workshop.install("by-path"), house.agent.mark()
    assert programs.run(by_path, "tcp", "127.0.0.1", "8086").word == "OK"
    refused = programs.run(by_path, "tcp", "127.0.0.1", "8087")
    assert refused.word == "EPERM"
    assert rule_of(house, refused.pid, since) == house.policy.rule(f'path = "{by_path}"')


def test_path_does_not_govern_another_file_of_that_name(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """The same base name elsewhere is another program."""
    twin, since = workshop.new_folder() / "by-path", house.agent.mark()
    shutil.copy(workshop.prober, twin)
    outcome = programs.run(twin, "tcp", "127.0.0.1", "8087")
    assert outcome.word == "OK"
    assert rule_of(house, outcome.pid, since) == "unconfigured"


def test_a_symlink_to_a_program_is_that_program(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """The executed file counts, not the name it was called by."""
    workshop.install("by-path")
    alias = workshop.new_folder() / "innocent"
    alias.symlink_to(house.bin / "by-path")
    assert programs.run(alias, "tcp", "127.0.0.1", "8087").word == "EPERM"


def test_a_symlink_in_a_configured_path_is_resolved(house: House, programs: Programs) -> None:
    """A rule about a link is about the file behind it, however it is called."""
    assert programs.run(house.bin / "tool", "tcp", "127.0.0.1", "8087").word == "EPERM"
    assert programs.run(house.bin / "link-to-tool", "tcp", "127.0.0.1", "8087").word == "EPERM"
    assert programs.run(house.bin / "tool", "tcp", "127.0.0.1", "8086").word == "OK"


def test_a_hard_link_is_known_by_its_own_name(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """The kernel walks the executed link's own path."""
    hard, since = workshop.bin / "hard-linked", house.agent.mark()
    os.link(workshop.install("by-path"), hard)
    outcome = programs.run(hard, "tcp", "127.0.0.1", "8087")
    assert outcome.word == "EPERM"
    assert rule_of(house, outcome.pid, since) == house.policy.rule('exe = "hard-linked"')


def test_cmdline_matches_a_wrapper_script_by_its_path(house: House, programs: Programs) -> None:
    """For ``#!`` programs the command line counts from the script on."""
    assert programs.run(house.bin / "wrapper.py", "8086").word == "OK"
    assert programs.run(house.bin / "wrapper.py", "8087").word == "EPERM"


def test_cmdline_does_not_match_the_same_text_as_another_argument(
    house: House, programs: Programs
) -> None:
    """A script's path as a mere argument makes nobody that script."""
    text = WRAPPER.split("\n", 1)[1]
    outcome = programs.run("python3", "-c", text, house.bin / "wrapper.py", "8087")
    assert outcome.word == "OK", outcome.stderr


def test_cmdline_matches_leading_whole_arguments_only(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """``tool tcp`` does not match ``tool tcp-mapped``."""
    program = workshop.install("by-argument")
    assert programs.run(program, "tcp", "127.0.0.1", "8086").word == "OK"
    assert programs.run(program, "tcp", "127.0.0.1", "8087").word == "EPERM"
    assert programs.run(program, "tcp", "127.0.0.10", "8087").word == "OK"
    assert programs.run(program, "tcp-mapped", "127.0.0.1", "8087").word == "OK"


def test_user_is_judged_at_the_connection(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """A daemon that drops root after exec gets its user's rule from then on."""
    talk = programs.talk(workshop.install("by-user"))
    assert talk.reaches("tcp", "127.0.0.1", 8087)
    assert talk.say(f"setuid {NOBODY}") == "OK"
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    assert talk.reaches("tcp", "127.0.0.1", 8086)


def test_user_rule_does_not_reach_another_program_of_that_user(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """Selectors are ANDed."""
    other = workshop.install("not-by-user")
    assert programs.run(other, "tcp", "127.0.0.1", "8087", user=NOBODY).word == "OK"


@pytest.mark.parametrize(
    ("becoming", "expected"),
    [
        pytest.param(
            ["setpriv", f"--ruid={NOBODY}"], "EPERM", id="set-user-id-program-of-nobody-s"
        ),
        pytest.param(["setpriv", f"--euid={NOBODY}"], "OK", id="root-in-nobody-s-name"),
        pytest.param(["unshare", "--user", f"--map-user={NOBODY}"], "OK", id="own-namespace"),
    ],
)
def test_user_is_the_real_one_of_the_host(
    becoming: list[str], expected: str, house: House, workshop: Workshop, programs: Programs
) -> None:
    """Not the effective one, nor what somebody is called in a user namespace of their own."""
    program = workshop.install("by-user")
    user = NOBODY - 1 if becoming[0] == "unshare" else None
    outcome = programs.run(*becoming, program, "tcp", "127.0.0.1", "8087", user=user)
    assert outcome.word == expected, outcome.stderr


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        pytest.param("telegraf.service", "EPERM", id="its-unit"),
        pytest.param("telegraf.service/worker", "EPERM", id="its-delegated-child"),
        pytest.param("telegraf2.service", "OK", id="another-unit"),
        pytest.param("user@1.service/telegraf.service", "OK", id="a-name-its-user-chose"),
        pytest.param(None, "OK", id="no-unit"),
    ],
)
def test_unit_is_the_service_a_program_runs_in(
    unit: str | None, expected: str, house: House, workshop: Workshop, programs: Programs
) -> None:
    """The same program gets the rule in its unit and not outside."""
    program = workshop.install("by-unit")
    assert programs.run(program, "tcp", "127.0.0.1", "8087", unit=unit).word == expected
    assert programs.run(program, "tcp", "127.0.0.1", "8086", unit=unit).word == "OK"


def test_unit_follows_a_program_that_is_moved(
    house: House, workshop: Workshop, programs: Programs, scratch: ScratchCgroup
) -> None:
    """The unit is judged at the connection, and the event names it."""
    talk, since = programs.talk(workshop.install("by-unit")), house.agent.mark()
    assert talk.reaches("tcp", "127.0.0.1", 8087)
    (scratch.unit("telegraf.service") / "cgroup.procs").write_text(str(talk.pid))
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    events = house.agent.settled_events(since, process__pid=talk.pid)
    assert field(events[-1], "aegis.unit") == "telegraf.service"


def test_unit_alone_governs_every_program_in_it(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """A unit is enough of a selector."""
    program = workshop.install("whoever")
    assert programs.run(program, "tcp", "127.0.0.1", "8087", unit="whole.service").word == "EPERM"
    assert programs.run(program, "tcp", "127.0.0.1", "8087").word == "OK"


def test_more_selectors_win_and_path_beats_exe(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """Two selectors beat one; of one each, path beats exe though exe stands later."""
    talk = programs.talk(workshop.install("ranked"))
    ports = (9, 8086, 8087)
    assert [talk.reaches("tcp", "127.0.0.1", port) for port in ports] == [False, True, False]
    assert talk.say(f"setuid {NOBODY}") == "OK"
    assert [talk.reaches("tcp", "127.0.0.1", port) for port in ports] == [False, False, True]


def test_the_later_of_two_equal_rules_replaces_the_earlier_whole(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """Neither ports nor actions of the replaced rule remain."""
    program = workshop.install("replaced")
    assert programs.run(program, "tcp", "127.0.0.1", "8086").word == "OK"
    assert programs.run(program, "tcp", "127.0.0.1", "8087").word == "EPERM"


@pytest.mark.parametrize("name", ["ignored", "mute"])
def test_what_is_not_watched_goes_out_unseen(
    name: str, house: House, workshop: Workshop, programs: Programs
) -> None:
    """``ignore = true`` and ``actions = []``: allowed, and no event."""
    since = house.agent.mark()
    outcome = programs.run(workshop.install(name), "tcp", "127.0.0.1", "8087")
    assert outcome.word == "OK"
    assert house.agent.settled_events(since, process__pid=outcome.pid) == []


@pytest.mark.parametrize("form", ["fork", "orphan", "thread", "vfork", "vfork-exec"])
def test_children_inherit(form: str, house: House, workshop: Workshop, programs: Programs) -> None:
    """A fork is the program it was forked from, also when its parent is gone."""
    by_path, since = workshop.install("by-path"), house.agent.mark()
    assert programs.run(by_path, form, "127.0.0.1", "8087").word == "EPERM"
    [event] = house.agent.settled_events(since, process__executable=str(by_path))
    assert field(event, "aegis.verdict") == "blocked"


def test_exec_changes_the_program(
    house: House, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """What a governed program execs is judged by what it is, not by who called."""
    before = servers.connections(8087)
    shell = workshop.install("by-path-shell", "/bin/sh")
    line = 'exec "$0" tcp 127.0.0.1 8087'
    outcome = programs.run(shell, "-c", line, workshop.install("by-path"))
    assert outcome.word == "EPERM"
    outcome = programs.run(shell, "-c", line, workshop.install("stranger"))
    assert outcome.word == "OK"
    assert servers.connections(8087) == before + 1
