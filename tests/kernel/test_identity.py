# SPDX-License-Identifier: Apache-2.0
"""No false passport: what a program says about itself, or mounts, changes nothing.

Here the unconfigured are blocked, and only /usr/bin/curl may reach 8086. So
whoever reaches 8086 has passed for curl.
"""

import shutil
import sys
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY
from tests.kernel.workshop import Workshop

CURL = "/usr/bin/curl"

POLICY = f"""
[global]
detent = 0
unconfigured_actions = ["log", "block"]

[[app]]
path = "{CURL}"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""

PAGE = "http://127.0.0.1:8086/"

# Executes curl's bytes from memory, under curl's name.
MEMFD = f"""
import os
fd = os.memfd_create("curl")
os.write(fd, open("{CURL}", "rb").read())
os.execve(fd, ["{CURL}", "-sS", "--noproxy", "*", "{PAGE}"], dict(os.environ))
"""


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents) -> Agent:
    servers.open(8086, 8087)
    started, _ = agents.share(POLICY)
    return started


def test_curl_itself_may(agent: Agent, programs: Programs) -> None:
    """The right case, as root and as anyone: else all the refusals below prove nothing."""
    assert programs.curl(CURL, PAGE).code == 0
    assert programs.curl(CURL, PAGE, user=NOBODY).code == 0


def test_the_unconfigured_may_not(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """``unconfigured_actions`` with ``block`` refuses whoever has no rule."""
    since = agent.mark()
    outcome = programs.run(workshop.install("stranger"), "tcp", "127.0.0.1", "8086")
    assert outcome.word == "EPERM"
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "rule.name") == "unconfigured"
    assert field(event, "aegis.verdict") == "blocked"


@pytest.mark.parametrize("lie", ["comm curl", f"argv {CURL}", f"exe {CURL}"])
def test_a_lie_gains_nothing(
    lie: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """An unprivileged program renames itself, rewrites argv, or forges /proc/self/exe."""
    liar, since = workshop.install("liar"), agent.mark()
    talk = programs.talk(liar, user=NOBODY)
    assert talk.say(lie) == "OK"
    assert not talk.reaches("tcp", "127.0.0.1", 8086)
    assert not talk.reaches("udp-send", "127.0.0.1", 8086)
    for event in agent.settled_events(since, process__pid=talk.pid):
        assert field(event, "process.executable") == str(liar)
        assert field(event, "process.command_line") == f"{liar} -"
    assert talk.end() == 0


@pytest.mark.parametrize("lie", ["comm curl", f"argv {CURL}", f"exe {CURL}"])
def test_a_lie_frees_nobody(lie: str, agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """A restricted program stays restricted whatever it calls itself."""
    talk = programs.talk(workshop.install("restricted"), user=NOBODY)
    assert talk.say(lie) == "OK"
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    assert talk.reaches("tcp", "127.0.0.1", 8086)
    assert talk.end() == 0


def test_renaming_a_running_program_changes_nothing(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Identity is the path at exec: not where the file is moved to later."""
    folder, since = workshop.new_folder(), agent.mark()
    path = folder / "unlucky"
    shutil.copy(workshop.prober, path)
    talk = programs.talk(path)
    assert not talk.reaches("tcp", "127.0.0.1", 8086)
    path.rename(folder / "restricted")
    assert not talk.reaches("tcp", "127.0.0.1", 8086)
    events = agent.settled_events(since, process__pid=talk.pid)
    assert {field(event, "process.executable") for event in events} == {str(path)}


def test_deleting_a_running_program_changes_nothing(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """A package upgrade under a running daemon neither frees it nor cuts it off."""
    path = workshop.new_folder() / "restricted"
    shutil.copy(workshop.prober, path)
    talk = programs.talk(path)
    assert talk.reaches("tcp", "127.0.0.1", 8086)
    path.unlink()
    assert talk.reaches("tcp", "127.0.0.1", 8086)
    assert not talk.reaches("tcp", "127.0.0.1", 8087)


def test_an_upgraded_program_is_the_same_program(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Another file renamed over the path has the path's rule from its first exec."""
    folder = workshop.new_folder()
    path, new = folder / "restricted", folder / "restricted.dpkg-new"
    shutil.copy(workshop.prober, path)
    assert programs.run(path, "tcp", "127.0.0.1", "8086").word == "OK"
    shutil.copy(workshop.prober, new)
    new.rename(path)
    assert programs.run(path, "tcp", "127.0.0.1", "8086").word == "OK"
    assert programs.run(path, "tcp", "127.0.0.1", "8087").word == "EPERM"


def in_own_mounts(evil: Path, *command: str) -> list[str]:
    """As an unprivileged user: mount *evil* over curl in a namespace of one's own, run it."""
    line = f'mount --bind "{evil}" {CURL} && exec {CURL} "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", line, "sh", *command]


def test_a_bind_mount_in_a_users_own_namespace_is_no_passport(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """The path reads /usr/bin/curl, but it was not reached in the host's file system."""
    since = agent.mark()
    argv = in_own_mounts(workshop.install("evil"), "tcp", "127.0.0.1", "8086")
    outcome = programs.run(*argv, user=NOBODY)
    assert outcome.word == "EPERM", outcome.stderr
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert "host-fs" not in field(event, "aegis.identity")
    assert "trusted" not in field(event, "aegis.identity")


def test_a_chroot_is_no_passport(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """The same path inside another root is another file."""
    root = workshop.new_folder()
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy(workshop.prober, root / "usr/bin/curl")
    outcome = programs.run("chroot", root, CURL, "tcp", "127.0.0.1", "8086")
    assert outcome.word == "EPERM", outcome.stderr


def test_a_service_with_mounts_of_its_own_keeps_its_rule(agent: Agent, programs: Programs) -> None:
    """PrivateTmp and its like give a mount namespace of the host's: the path still matches."""
    line = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    command = f'mount -t tmpfs none /tmp && exec {CURL} -sS --noproxy "*" {PAGE}'
    outcome = programs.run(*line, command)
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr


def test_a_program_run_from_memory_is_not_the_file_it_copies(
    agent: Agent, programs: Programs
) -> None:
    """memfd: no path of the host, so nothing can be claimed."""
    since = agent.mark()
    outcome = programs.run(sys.executable, "-c", MEMFD)
    assert outcome.code == 7, outcome.stderr
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "process.executable") != CURL
    assert "unlinked" in field(event, "aegis.identity")


def test_a_program_started_by_the_loader_is_the_loader(agent: Agent, programs: Programs) -> None:
    """``ld.so /usr/bin/curl`` executes ld.so."""
    [loader, *_] = sorted(Path("/").glob("lib*/ld-linux*.so.*"))
    since = agent.mark()
    outcome = programs.run(loader, CURL, "-sS", "--noproxy", "*", PAGE)
    assert outcome.code == 7, outcome.stderr
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "process.name").startswith("ld-linux")


def test_hostile_names_make_one_valid_line(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Newlines, escapes and broken UTF-8 in names never break or forge a record."""
    path = workshop.new_folder() / 'x\n{"event":1}\x1b[2J\udcff (deleted)'
    shutil.copy(workshop.prober, path)
    since = agent.mark()
    outcome = programs.run(path, "tcp", "127.0.0.1", "8086")
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert bytes.fromhex(field(event, "aegis.hex.executable")) == str(path).encode(
        errors="surrogateescape"
    )
