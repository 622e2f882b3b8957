# SPDX-License-Identifier: Apache-2.0
"""Keys of an ``[[app]]`` on real programs, where no other file here tries them."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.config.limits import CMDLINE_BYTES, EXE_BYTES, PATH_BYTES
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE6
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.test_selectors import WRAPPER
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

# As long as a rule may say them; whatever is longer is something else.
LONG_EXE = "e" * EXE_BYTES
LONG_PATH = f"/{'p' * 127}/{'p' * (PATH_BYTES - 129)}"

POLICY = """
[global]
detent = 0
default_actions = ["log", "block"]

[[app]]
path = "{inside}"
namespace = "any"
ports = ["8086"]

[[app]]
path = "{jailed}"
namespace = "any"
ports = ["8086"]

[[app]]
path = "{outside}"
ports = ["8086"]

[[app]]
user = {somebody}
ports = ["8086"]

[[app]]
exe = "{exe}"
ports = ["8086"]

[[app]]
path = "{path}"
ports = ["8086"]

[[app]]
cmdline = "{cmdline}"
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
    for name in ("inside", "outside", "jailed"):
        shutil.copy(workshop.prober, root / "opt" / name)
    return root


@pytest.fixture(scope="module")
def agent(root: Path, workshop: Workshop, servers: Servers, agents: Agents) -> Agent:
    servers.open(8086, 8087)
    script = workshop.script("long-line.py", WRAPPER)
    text = POLICY.format(
        inside="/opt/inside",
        outside="/opt/outside",
        jailed=root / "opt/jailed",
        somebody=SOMEBODY,
        exe=LONG_EXE,
        path=LONG_PATH,
        cmdline=f"{script} ".ljust(CMDLINE_BYTES, "c"),
    )
    started, _ = agents.share(text)
    return started


def in_container(root: Path, *command: str) -> list[str]:
    """Run *command* where *root* is all there is of a file system."""
    line = 'mount --bind "$0" "$0" && cd "$0" && pivot_root . old && exec "$@"'
    unshare = ["unshare", "--mount", "--propagation", "private"]
    return [*unshare, "sh", "-c", line, str(root), *command]


def in_chroot(root: Path, *command: str) -> list[str]:
    """Run *command* where *root* is all it sees, though the kernel knows the whole path."""
    return ["chroot", str(root), *command]


def in_chroot_below_itself(root: Path, *command: str) -> list[str]:
    """The same directory again, mounted inside itself: only the mount tells which is the root."""
    line = 'mount --bind "$0" "$0/old" && exec chroot "$0/old" "$@"'
    unshare = ["unshare", "--mount", "--propagation", "private"]
    return [*unshare, "sh", "-c", line, str(root), *command]


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(("inside", "8087", "EPERM"), id="limits"),
        pytest.param(("inside", "8086", "OK"), id="permissions"),
        pytest.param(("outside", "8087", "OK"), id="not-without-the-key"),
    ],
)
@pytest.mark.parametrize("within", [in_container, in_chroot, in_chroot_below_itself])
def test_any_namespace_takes_the_path_wherever_it_is(
    within: Callable[..., list[str]],
    attempt: tuple[str, str, str],
    agent: Agent,
    root: Path,
    programs: Programs,
) -> None:
    """The same path in a container or chroot gets the rule, and nothing else in there does."""
    name, port, word = attempt
    outcome = programs.run(*within(root, f"/opt/{name}", "tcp", "127.0.0.1", port))
    assert outcome.word == word, outcome.stderr


def test_any_namespace_takes_a_chroot_s_program_by_its_whole_path_too(
    agent: Agent, root: Path, programs: Programs
) -> None:
    """The key widens; it takes nothing away."""
    for port, word in (("8087", "EPERM"), ("8086", "OK")):
        command = in_chroot(root, "/opt/jailed", "tcp", "127.0.0.1", port)
        assert programs.run(*command).word == word


def test_a_name_longer_than_the_kernel_keeps_is_nobody_s(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """The longest name a rule may have is one; a longer one that begins like it is not."""
    for name, word in ((LONG_EXE, "EPERM"), (LONG_EXE + "e", "OK")):
        program = shutil.copy(workshop.prober, workshop.new_folder() / name)
        assert programs.run(program, "tcp", REMOTE4, "8087").word == word


def test_a_path_longer_than_the_kernel_keeps_is_nobody_s(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Of such a path the kernel has the tail, which may read like a rule's."""
    program = Path(f"{workshop.new_folder()}{LONG_PATH}")
    program.parent.mkdir(parents=True)
    shutil.copy(workshop.prober, program)
    assert programs.run(program, "tcp", REMOTE4, "8087").word == "OK"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param(0, "EPERM", id="as-long-as-a-rule-may-say"),
        pytest.param(1, "OK", id="one-byte-longer"),
        pytest.param(-1, "OK", id="one-byte-shorter"),
    ],
)
def test_a_command_line_longer_than_a_rule_s_is_another(
    change: int, word: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Of 255 bytes the kernel once matched none: it stopped before the NUL at their end."""
    script = workshop.bin / "long-line.py"
    argument = "c" * (CMDLINE_BYTES - len(f"{script} ") + change)
    outcome = programs.run(script, argument, "8087")
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
