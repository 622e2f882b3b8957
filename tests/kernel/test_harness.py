# SPDX-License-Identifier: Apache-2.0
"""The harness itself, without an agent: were it blind, every test after it could lie."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel import forked
from tests.kernel.agent import LINE_MAX, Event, line_start
from tests.kernel.cgroup import ScratchCgroup, cgroup2_mount
from tests.kernel.forms import CASE_IDS, CASES, Form
from tests.kernel.measuring import Attempt
from tests.kernel.network import REMOTE4, REMOTE6
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY, PATIENCE
from tests.kernel.workshop import Workshop

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        pytest.param(HYBRID, Path("/sys/fs/cgroup/unified"), id="hybrid"),
        pytest.param(HYBRID.replace("cgroup2 cgroup2", "tmpfs x"), None, id="no-cgroup2"),
    ],
)
def test_cgroup2_is_found_by_type_not_by_place(mountinfo: str, expected: Path | None) -> None:
    """On a hybrid host cgroup2 is not at /sys/fs/cgroup, and a v1 mount is not taken for it."""
    assert cgroup2_mount(mountinfo) == expected


@pytest.mark.parametrize("before", ["", "x" * LINE_MAX + "\n"], ids=["short", "long"])
def test_a_mark_is_a_line_of_what_was_there_then(before: str) -> None:
    """An agent that writes between our look at the size and our reading moves no mark."""
    first = f"{before}first\n"
    later = io.BytesIO(f"{first}second\nhalf a li".encode())
    assert line_start(later, len(first)) == len(first)
    assert line_start(later, len(first) + 3) == len(first)


@pytest.mark.parametrize(
    ("word", "hooks"), [("SIGKILL", ["listen"]), ("OK", ["ingress", "listen"])]
)
def test_who_comes_before_a_listener_is_dead_does_so_by_chance(word: str, hooks: list[str]) -> None:
    events: list[Event] = [
        {"aegis": {"hook": "listen"}, "process": {"command_line": "server listen-unbound 5"}},
        {"aegis": {"hook": "ingress"}, "destination": {"port": 5}},
    ]
    assert Attempt(5, word, arrived=False).hooks(events) == hooks


@pytest.mark.parametrize(("form", "address"), CASES, ids=CASE_IDS)
def test_every_form_reaches_a_server_when_nobody_objects(
    form: Form, address: str, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """Without Aegis each form delivers exactly what it says it delivers."""
    servers.open(8086, 8087)
    before = servers.counted(8086)
    outcome = programs.run(workshop.prober, form.name, address, "8086", "1", "8087")
    assert (outcome.word, outcome.code) == ("OK", 0)
    after = (servers.connections(8086), servers.datagrams(8086))
    assert (after[0] - before[0], after[1] - before[1]) == (form.connections, form.datagrams)


@pytest.mark.parametrize("address", [REMOTE4, REMOTE6])
def test_remote_addresses_are_served_inside_the_network(
    address: str, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """Documentation addresses answer, so a refusal there is Aegis's and not the route's."""
    servers.open(8086)
    assert programs.run(workshop.prober, "tcp", address, "8086").word == "OK"


def test_a_closed_port_is_not_mistaken_for_a_refusal(
    workshop: Workshop, programs: Programs
) -> None:
    """ECONNREFUSED comes from the peer: the packet went out, exit 0 and not 1."""
    outcome = programs.run(workshop.prober, "tcp", "127.0.0.1", "9")
    assert (outcome.word, outcome.code) == ("ECONNREFUSED", 0)


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["tcp"], id="no-address"),
        pytest.param(["nonsense", "::1", "1"], id="no-such-form"),
        pytest.param(["tcp", "localhost", "1"], id="a-name"),
        pytest.param(["tcp-mapped", "::1", "1"], id="ipv6-cannot-be-mapped"),
    ],
)
def test_prober_refuses_what_it_does_not_understand(argv: list[str], workshop: Workshop) -> None:
    """A typing error in a test must not look like a verdict."""
    assert subprocess.run([workshop.prober, *argv], check=False).returncode == 2


def test_real_curl_gets_the_page(programs: Programs, servers: Servers) -> None:
    """The servers speak enough HTTP for curl, so its failure later means a refusal."""
    servers.open(8086)
    before = servers.connections(8086)
    outcome = programs.curl("curl", "http://127.0.0.1:8086/")
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    assert servers.connections(8086) == before + 1


def test_programs_run_where_they_were_put(scratch: ScratchCgroup, programs: Programs) -> None:
    """A program's pid is the one started, in its unit's cgroup, as its user."""
    program = programs.start("sleep", "60", user=NOBODY, unit="telegraf.service")
    command = Path(f"/proc/{program.pid}/comm")
    while command.read_text().strip() != "sleep":
        assert program.poll() is None
    cgroup = Path(f"/proc/{program.pid}/cgroup").read_text().splitlines()[-1]
    assert cgroup.endswith(f"{scratch.path.name}/telegraf.service")
    assert Path(f"/proc/{program.pid}").stat().st_uid == NOBODY
    assert program.pid in scratch.pids()


def test_scratch_cgroup_goes_away_with_programs_still_inside() -> None:
    """A failed test leaves neither processes nor directories behind."""
    with ScratchCgroup() as scratch:
        unit = scratch.unit("left.service")
        line = 'echo $$ > "$0/cgroup.procs"; sleep 60 & exec sleep 60'
        with subprocess.Popen(["/bin/sh", "-c", line, str(unit)]) as left:
            while len(scratch.pids()) < 2:
                assert left.poll() is None
            scratch.close()
            assert left.wait() == -signal.SIGKILL
        assert not scratch.path.exists()
        scratch.path.mkdir()  # for the end of ``with``


def test_prober_can_lie_about_itself(workshop: Workshop, programs: Programs) -> None:
    """The lies that later must not help do work: ps, comm and /proc/PID/exe are fooled."""
    talk = programs.talk(workshop.prober, user=NOBODY)
    assert talk.say("comm telegraf") == "OK"
    assert talk.say("argv /usr/bin/curl") == "OK"
    assert talk.say("exe /usr/bin/curl") == "OK"
    assert Path(f"/proc/{talk.pid}/comm").read_text() == "telegraf\n"
    assert Path(f"/proc/{talk.pid}/cmdline").read_bytes().startswith(b"/usr/bin/curl\0")
    assert str(Path(f"/proc/{talk.pid}/exe").readlink()) == "/usr/bin/curl"
    assert talk.end() == 0


@pytest.mark.parametrize("words", [("check", "-c", "/nowhere.toml"), ("--version",), ("load", "x")])
def test_a_copied_command_is_the_command(words: tuple[str, ...]) -> None:
    """What guests start is what an administrator would: same exit code, same words."""
    command = [sys.executable, "-m", "aegis", *words]
    real = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    copied = forked.run(words, PATIENCE)
    said = (real.returncode, real.stdout, real.stderr)
    assert (copied.returncode, copied.stdout, copied.stderr) == said
    assert any(said)
