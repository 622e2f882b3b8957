# SPDX-License-Identifier: Apache-2.0
"""``tamper_guard``: another root process is refused what Aegis does, where the BPF LSM is active.

Elsewhere this file is not collected: test_guard_lacking holds what is said there. A stranger here
is a fork of this process: as it executes nothing, it is not what whoever started the agent started.
"""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aegis._bpf import lib
from aegis.bpf.cgroup import BPFFS, PINS, cgroup2_mount
from aegis.bpf.guard import GUARD, WAY_OUT
from tests.kernel import strangers
from tests.kernel.agent import field
from tests.kernel.conftest import Agents
from tests.kernel.guarded import MARK, Guarded, command, wait_until
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.strangers import stranger
from tests.kernel.test_evidence import DEEDS, House

MNT_DETACH = 2
READ_ONLY = 32 | 1  # MS_REMOUNT, MS_RDONLY


@pytest.fixture(scope="module")
def guarded(agents: Agents) -> Iterator[Guarded]:
    made = Guarded(agents)
    try:
        yield made
    finally:
        made.close()
        agents.close()
        made.place.rmdir()


@pytest.fixture
def active(guarded: Guarded) -> Guarded:
    assert guarded.active, guarded.agent.command("status").stdout
    return guarded


# ---- objects and pins ----


def _replace(house: House) -> None:
    with house.opened(house.pins.link_path("aegis_bind4")):
        raise AssertionError("the link could be opened")


CHANGES = [(name, _replace if name == "a program replaced" else deed) for name, deed, _ in DEEDS]


@pytest.mark.parametrize("deed", [deed for _, deed in CHANGES], ids=[name for name, _ in CHANGES])
def test_what_is_evidence_elsewhere_is_refused(
    deed: Callable[[House], None], active: Guarded
) -> None:
    """The very deeds of test_evidence: none of them comes to be."""
    active.expect(lambda: deed(active.house), "pin")


def test_what_was_opened_before_is_of_no_use(active: Guarded) -> None:
    row = strangers.first_entry(active.table, "hosts")
    active.expect(lambda: strangers.checked(lib.aegis_link_detach(active.link)), "link")
    active.expect(lambda: strangers.checked(lib.aegis_link_update(active.link, 0)), "link")
    active.expect(lambda: strangers.fill(active.table, *row), "map")
    active.expect(lambda: strangers.clear(active.table, *row), "map")


@pytest.mark.parametrize("kind", list(strangers.GET_FD_BY_ID))
def test_our_objects_are_not_there_by_number(active: Guarded, kind: str) -> None:
    """ENOENT, on which bpftool and others go on with the next one; listing them is no tampering."""
    number = active.numbers[kind]
    since = active.agent.mark()
    assert stranger(lambda: strangers.by_number(kind, number)) == errno.ENOENT
    assert number in strangers.numbers(kind)
    assert active.refusals(since) == []


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(lambda pins: (PINS / pins.instance.name).rename(PINS / "other"), id="rename"),
        pytest.param(lambda pins: PINS.rename(BPFFS / "other"), id="rename-all"),
        pytest.param(lambda pins: pins.map_path("hosts").chmod(0o666), id="chmod"),
        pytest.param(lambda pins: os.chown(pins.folder, 1, 1), id="chown"),
        pytest.param(lambda pins: (pins.folder / "links" / "more").mkdir(), id="mkdir"),
    ],
)
def test_pins_stay_as_they_are(active: Guarded, deed: Callable[[object], object]) -> None:
    active.expect(lambda: deed(active.pins), "pin")


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(lambda: strangers.umount(str(BPFFS), MNT_DETACH), id="umount"),
        pytest.param(lambda: strangers.umount("/sys", MNT_DETACH), id="umount-above"),
        pytest.param(lambda: strangers.mount("none", str(BPFFS), "tmpfs"), id="mount-over"),
        pytest.param(lambda: strangers.mount("none", "/sys/fs", "tmpfs"), id="mount-above"),
        pytest.param(
            lambda: strangers.mount("none", str(BPFFS), None, READ_ONLY),
            id="read-only",
        ),
    ],
)
def test_the_file_system_of_the_pins_stays(active: Guarded, deed: Callable[[], None]) -> None:
    active.expect(deed, "mount")


# ---- the agent ----

HARM: dict[str, tuple[Callable[[int], object], str]] = {
    "SIGKILL": (lambda pid: os.kill(pid, signal.SIGKILL), "signal"),
    "SIGSTOP": (lambda pid: os.kill(pid, signal.SIGSTOP), "signal"),
    "SIGTERM": (lambda pid: os.kill(pid, signal.SIGTERM), "signal"),
    "a thread's": (lambda pid: strangers.signal_thread(pid, signal.SIGKILL), "signal"),
    "a pidfd's": (strangers.signal_by_pidfd, "signal"),
    "ptrace": (strangers.attach, "trace"),
    "memory": (lambda pid: strangers.write_memory(pid, 4096), "trace"),
    "proc-mem": (lambda pid: Path(f"/proc/{pid}/mem").write_bytes(b"x"), "trace"),
    "descriptor": (lambda pid: strangers.take_fd(pid, 1), "trace"),
    "limit": (strangers.limit_time, "limit"),
}


@pytest.mark.parametrize(("deed", "what"), HARM.values(), ids=HARM)
def test_the_agent_is_not_harmed(active: Guarded, deed: Callable[[int], object], what: str) -> None:
    # /proc makes EACCES of it.
    active.expect(lambda: deed(active.agent.pid), what, (errno.EPERM, errno.EACCES))
    assert active.agent.is_running


@pytest.mark.parametrize("name", ["cgroup.kill", "cgroup.freeze"])
def test_nor_by_its_cgroup(active: Guarded, name: str) -> None:
    active.expect(lambda: (active.place / name).write_text("1"), "cgroup")
    assert active.agent.is_running


def test_nor_by_another_cgroup(active: Guarded) -> None:
    """Where root put it: it is guarded there, too."""
    jail = cgroup2_mount() / f"{MARK}-jail"
    jail.mkdir()
    pid = str(active.agent.pid)
    try:
        assert stranger(lambda: (jail / "cgroup.procs").write_text(pid)) == 0
        active.expect(lambda: (jail / "cgroup.kill").write_text("1"), "cgroup")
        active.expect(lambda: (jail / "cgroup.freeze").write_text("1"), "cgroup")
    finally:
        (active.place / "cgroup.procs").write_text(pid)
        jail.rmdir()


def test_nor_by_a_file_that_becomes_ready(active: Guarded) -> None:
    """The file is ready all the same: nobody is told EPERM but the log."""
    since = active.agent.mark()
    assert stranger(lambda: strangers.signal_by_file(active.agent.pid, signal.SIGKILL)) == 0
    event = active.agent.wait_event(since, aegis__notice="tamper-refused")
    assert field(event, "aegis.refused.what") == "signal"
    assert active.agent.is_running


# ---- everybody else ----


def _other_objects() -> None:
    fd = strangers.make_map()
    os.close(strangers.by_number("map", strangers.map_number(fd)))
    pin = BPFFS / f"{MARK}-other"
    strangers.checked(lib.aegis_pin(fd, os.fsencode(pin)))
    os.close(strangers.checked(lib.aegis_get_pinned(os.fsencode(pin))))
    pin.chmod(0o640)
    pin.rename(BPFFS / f"{MARK}-moved")
    (BPFFS / f"{MARK}-moved").unlink()
    (PINS / MARK).mkdir()
    (PINS / MARK).rmdir()


def _other_processes() -> None:
    child = os.fork()
    if not child:
        signal.pause()
    strangers.attach(child)
    strangers.limit_time(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _other_mounts() -> None:
    place = f"/run/{MARK}-mount"
    Path(place).mkdir(exist_ok=True)
    strangers.mount("none", place, "tmpfs")
    strangers.mount("bpf", place, "bpf")
    strangers.umount(place)
    strangers.umount(place)
    Path(place).rmdir()


def _other_cgroups() -> None:
    place = cgroup2_mount() / f"{MARK}-other"
    place.mkdir()
    (place / "cgroup.freeze").write_text("1")
    (place / "cgroup.kill").write_text("1")
    place.rmdir()


def test_others_objects_are_others_business(active: Guarded) -> None:
    since = active.agent.mark()
    for deed in (_other_objects, _other_processes, _other_mounts, _other_cgroups):
        assert stranger(deed) == 0, deed
    assert active.refusals(since) == []


def test_what_does_no_harm_is_for_everybody(active: Guarded) -> None:
    """To look at the agent, have it reload, and ask it."""
    pid, since = active.agent.pid, active.agent.mark()
    assert stranger(lambda: os.kill(pid, 0)) == 0
    assert stranger(lambda: Path(f"/proc/{pid}/maps").read_text()) == 0
    assert stranger(lambda: os.kill(pid, signal.SIGHUP)) == 0
    active.agent.wait_event(since, aegis__notice="reloaded")
    place = [] if AT_ROOT else ["--cgroup", str(active.agent.cgroup)]
    assert command("reload", *place).returncode == 0
    finished = command("status", *place)
    assert finished.returncode == 0, finished.stdout
    assert "tampering refused" in finished.stdout and "guard            active" in finished.stdout
    assert active.refusals(since) == []


def test_nothing_was_changed(active: Guarded) -> None:
    """By anything above: told within two seconds if it had been (test_evidence)."""
    notices = {field(event, "aegis.notice") for event in active.agent.events()}
    assert "tamper-refused" in notices
    wrong = {"tampered", "self-test-failed"}
    said = [field(e, "message") for e in active.agent.events() if field(e, "aegis.notice") in wrong]
    assert said == []


# ---- Aegis, and the ways out: last, in this order ----


def test_aegis_may(active: Guarded) -> None:
    """What whoever started the agent starts is Aegis; its deeds are told as evidence."""
    since = active.agent.mark()
    code = (
        "import sys; from pathlib import Path; from aegis.bpf.pins import Pins;"
        "p = Pins(sys.argv[1]).map_path('watch'); p.chmod(0o400); p.chmod(0o600)"
    )
    argv = [sys.executable, "-c", code, active.pins.instance.name]
    subprocess.run(argv, check=True, cwd="/", timeout=PATIENCE)
    assert active.refusals(since) == []


def test_a_crash_leaves_the_guard_and_the_next_agent_takes_it_over(active: Guarded) -> None:
    """Who started it may end it. No stranger gets in between, of which the next agent tells; unless

    an agent cannot start, which must not keep the host's owner from what is in force.
    """
    active.agent.stop(signal.SIGKILL)
    since = active.agent.mark()
    assert stranger((active.pins.folder / "unheard-of").mkdir) == errno.EPERM
    assert stranger(lambda: strangers.checked(lib.aegis_link_detach(active.link))) == errno.EPERM
    place = [] if AT_ROOT else ["--cgroup", str(active.agent.cgroup)]
    for words in (("status",), ("unload",), ("run", "-c", str(active.agent.policy))):
        finished = command(*words, *place)
        assert finished.returncode == 1
        assert WAY_OUT in finished.stderr, finished.stderr
    active.ask("true", "[[app")
    with pytest.raises(AssertionError, match="tamper_guard is lifted: this agent cannot start"):
        active.agent.start()
    # The kernel ends a link a moment after its last pin has gone.
    wait_until(lambda: stranger(lambda: active.pins.map_path("watch").chmod(0o600)) == 0)
    active.ask("true")
    active.agent.start()
    told = {field(event, "message") for event in active.refusals(since)}
    number = active.pins.folder.stat().st_ino
    assert any(f"to open or change pin {number}" in message for message in told), told
    assert active.agent.status()["tiers"][GUARD]["active"]
    active.expect(lambda: active.house.detach("aegis_connect6"), "pin")


def test_what_a_reload_attaches_is_guarded(active: Guarded) -> None:
    active.ask("true", '[[app]]\nexe = "unheard-of-too"\nlisten = ["99"]\nactions = ["block"]\n')
    assert "aegis: reloaded" in active.agent.reload()
    link = active.pins.link_path("aegis_ingress")
    assert link.exists()
    active.expect(lambda: active.house.detach("aegis_ingress"), "pin")
    active.ask("true")
    assert "aegis: reloaded" in active.agent.reload()
    assert not link.exists()


def test_a_policy_without_it_lifts_it(active: Guarded) -> None:
    since = active.agent.mark()
    active.ask("false")
    active.agent.reload()
    active.agent.wait_event(since, aegis__notice="guard-lifted")
    wait_until(lambda: stranger(lambda: active.pins.map_path("watch").chmod(0o600)) == 0)
    active.ask("true")
    active.agent.reload()
    event = active.agent.wait_event(since, aegis__notice="not-covered")
    assert "from the agent's next start on" in field(event, "message")
    active.agent.stop()
    active.agent.start()
    active.expect(lambda: active.house.detach("aegis_connect6"), "pin")


def test_unload_works_for_root(active: Guarded) -> None:
    """It asks the agent to end, who lifts the guard and says so."""
    place = [] if AT_ROOT else ["--cgroup", str(active.agent.cgroup)]
    finished = command("unload", "--history", str(active.agent.history), *place)
    assert finished.returncode == 0, finished.stderr
    assert not active.pins.instance.exists()
    assert any(field(event, "aegis.notice") == "guard-lifted" for event in active.agent.events())


def test_of_a_starter_and_an_agent_that_are_gone_no_guard_is_left(
    active: Guarded, tmp_path: Path
) -> None:
    """Nobody could be Aegis any more: it must not lock the host's owner out until a boot."""
    place = [] if AT_ROOT else ["--cgroup", str(active.agent.cgroup)]
    argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "aegis", "run"]
    argv += ["-c", str(active.agent.policy), "--log", str(tmp_path / "log"), *place]
    argv += ["--history", str(tmp_path / "history")]
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        starter = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" & echo $!; wait', "sh", *argv],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd="/",
        )
    try:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        wait_until(lambda: "aegis: ready" in said.read_text())
        assert stranger(lambda: active.pins.map_path("watch").chmod(0o600)) == errno.EPERM
        with pytest.raises(PermissionError):  # we are not who started this one
            os.kill(pid, signal.SIGKILL)
        starter.kill()
        starter.wait()
        wait_until(lambda: not Path(f"/proc/{pid}/exe").exists())
        wait_until(lambda: stranger(lambda: active.pins.map_path("watch").chmod(0o600)) == 0)
    finally:
        starter.kill()
        finished = command("unload", *place)
    assert finished.returncode == 0, finished.stderr
