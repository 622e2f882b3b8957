# SPDX-License-Identifier: Apache-2.0
"""``aegis run`` on a host that is to be let alone: nothing in force, nothing left, exit code 0."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""
# In a mount namespace of its own: the host's files stay as they are.
_WISHES = {
    "file": "mount -t tmpfs none /etc/aegis && touch /etc/aegis/off",
    "word": "mount --bind {words} /proc/cmdline",
}


def start(wish: str, policy: Path, scratch: ScratchCgroup, folder: Path) -> str:
    """What an agent says to *wish*; it must end by itself, with exit code 0."""
    words = folder / "cmdline"
    words.write_text("root=/dev/vda aegis=off quiet\n")
    place = [] if AT_ROOT else ["--cgroup", str(scratch.path)]
    script = _WISHES[wish].format(words=words) + ' && exec "$@"'
    run = [sys.executable, "-m", "aegis", "run", "-c", str(policy), *place]
    finished = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *run],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    return finished.stderr


@pytest.fixture
def talk(programs: Programs, workshop: Workshop, servers: Servers) -> Iterator[Talk]:
    servers.open(8087)
    talk = programs.talk(workshop.install("restricted"))
    yield talk
    assert talk.end() == 0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A scratch folder, on a host that has /etc/aegis."""
    place = Path("/etc/aegis")
    there = place.exists()
    place.mkdir(exist_ok=True)
    yield tmp_path
    if not there:
        place.rmdir()


@pytest.mark.parametrize("wish", sorted(_WISHES))
def test_nothing_is_put_in_force_and_what_was_goes(
    wish: str, agents: Agents, talk: Talk, scratch: ScratchCgroup, folder: Path
) -> None:
    """Also what an agent that was killed left in force."""
    agent, policy = agents.start(POLICY)
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    agent.stop()
    assert not talk.reaches("tcp", "127.0.0.1", 8087)
    said = start(wish, policy.path, scratch, folder)
    assert said.startswith("aegis: off: "), said
    assert "taken out of the kernel" in said
    assert talk.reaches("tcp", "127.0.0.1", 8087)
    assert "nothing is in force" in agent.command("status").stdout
    agents.close()
