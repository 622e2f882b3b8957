# SPDX-License-Identifier: Apache-2.0
"""Keys of an ``[[app]]`` on real programs, where no other file here tries them."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE6
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop

# An account nobody has: a rule for a whole user must not reach the harness.
SOMEBODY = 54321

# Waits to be killed: a program that has ended by itself cannot be.
CLIENT = """\
import socket, sys, time
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
except PermissionError:
    time.sleep(60)
"""

POLICY = """
[global]
detent = 0
default_actions = ["log", "block"]

[[app]]
path = "{inside}"
namespace = "any"
ports = ["8086"]

[[app]]
path = "{outside}"
ports = ["8086"]

[[app]]
user = {somebody}
ports = ["8086"]

[[app]]
exe = "nc"
actions = ["kill"]

[[app]]
exe = "let-pass"
ports = ["8086"]
actions = ["allow"]

[[app]]
exe = "let-pass-and-log"
ports = ["8086"]
actions = ["allow", "log"]
"""


@pytest.fixture(scope="module")
def root(workshop: Workshop) -> Path:
    """A root file system of its own, with two programs in it."""
    root = workshop.new_folder()
    (root / "opt").mkdir()
    (root / "old").mkdir()
    for name in ("inside", "outside"):
        shutil.copy(workshop.prober, root / "opt" / name)
    return root


@pytest.fixture(scope="module")
def agent(root: Path, servers: Servers, agents: Agents) -> Agent:
    servers.open(8086, 8087)
    text = POLICY.format(inside="/opt/inside", outside="/opt/outside", somebody=SOMEBODY)
    started, _ = agents.share(text)
    return started


def in_container(root: Path, *command: str) -> list[str]:
    """Run *command* where *root* is all there is of a file system."""
    line = 'mount --bind "$0" "$0" && cd "$0" && pivot_root . old && exec "$@"'
    unshare = ["unshare", "--mount", "--propagation", "private"]
    return [*unshare, "sh", "-c", line, str(root), *command]


@pytest.mark.parametrize(
    ("attempt", "word"),
    [
        pytest.param(("inside", "8087"), "EPERM", id="limits"),
        pytest.param(("inside", "8086"), "OK", id="permissions"),
        pytest.param(("outside", "8087"), "OK", id="not-without-the-key"),
    ],
)
def test_any_namespace_takes_the_path_wherever_it_is(
    attempt: tuple[str, str], word: str, agent: Agent, root: Path, programs: Programs
) -> None:
    """The same path in a container gets the rule, and nothing else of that container does."""
    name, port = attempt
    outcome = programs.run(*in_container(root, f"/opt/{name}", "tcp", "127.0.0.1", port))
    assert outcome.word == word, outcome.stderr


def test_user_alone_governs_every_program_of_that_user(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """A user is enough of a selector; other users are left alone."""
    for name in ("whoever", "whatever"):
        talk = programs.talk(workshop.install(name), user=SOMEBODY)
        assert not talk.reaches("tcp", REMOTE4, 8087)
        assert talk.reaches("tcp", REMOTE4, 8086)
    assert programs.run(workshop.install("whoever"), "tcp", REMOTE4, "8087").word == "OK"


@pytest.mark.parametrize("address", [REMOTE4, REMOTE6, "127.0.0.1"])
def test_a_rule_without_a_destination_kills_nc(
    address: str, agent: Agent, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """``exe = "nc"``, ``actions = ["kill"]`` and no list: nc is not to connect anywhere."""
    nc = shutil.copy(Path("/usr/bin/python3").resolve(), workshop.new_folder() / "nc")
    before = servers.connections(8086)
    outcome = programs.run(nc, "-c", CLIENT, address, "8086")
    assert outcome.code == -signal.SIGKILL, outcome.stderr
    assert servers.connections(8086) == before


@pytest.mark.parametrize(("name", "events"), [("let-pass", 0), ("let-pass-and-log", 1)])
def test_allow_lets_pass(
    name: str, events: int, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Alone silently; with ``log``, and said."""
    since = agent.mark()
    outcome = programs.run(workshop.install(name), "tcp", REMOTE4, "8087")
    assert outcome.word == "OK"
    found = agent.settled_events(since, process__pid=outcome.pid)
    assert len(found) == events
    assert [field(event, "aegis.verdict") for event in found] == ["allowed"] * events
