# SPDX-License-Identifier: Apache-2.0
"""What not every kernel lets run: tried at each start, found out by running it.

Versions are never compared. A program that loads and attaches may still never
run (an LSM program where the BPF LSM is not active), so each one must be seen
running before it is pinned and counted on. What is refused is data, not an
error: a start without it is a start.
"""

import os
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from aegis._bpf import lib
from aegis.bpf.adopt import About, ask
from aegis.bpf.cgroup import open_cgroup
from aegis.bpf.generation import index_key
from aegis.bpf.guard import GUARD
from aegis.bpf.guard import PROGRAMS as GUARD_PROGRAMS
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE
from aegis.bpf.object import BpfObject
from aegis.bpf.pins import Pins
from aegis.bpf.programs import Programs
from aegis.errors import KernelError

IN_HOOK = "kill-in-hook"
TRACING = "tracing"
LSM = "lsm"
ACTIVE_LSMS = Path("/sys/kernel/security/lsm")


@dataclass(frozen=True, slots=True)
class Tier:
    """*reason*: why it is not active; empty when it is."""

    name: str
    active: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drill:
    """*act* is harmless, and makes the program that counts at *index* run in this process."""

    index: int
    act: Callable[[], None]


def _connect_nowhere() -> None:
    # To port 0: nothing is sent, and no policy has a say in it.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 0))


def _make_socket() -> None:
    socket.socket(socket.AF_UNIX).close()


def _hand_over_nothing() -> None:
    # A file that is no socket, from this process to itself.
    mine, other = socket.socketpair()
    with mine, other, Path(os.devnull).open("rb") as file:
        socket.send_fds(mine, [b"."], [file.fileno()])
        for fd in socket.recv_fds(other, 1, 1)[1]:
            os.close(fd)


# Object -> its programs.
OBJECTS: Mapping[str, Mapping[str, Drill]] = {
    TRACING: {"aegis_kill_marked": Drill(lib.AEGIS_OPTIONAL_KILL_MARKED, _connect_nowhere)},
    LSM: {
        "aegis_socket_create": Drill(lib.AEGIS_OPTIONAL_SOCKET_CREATE, _make_socket),
        "aegis_file_receive": Drill(lib.AEGIS_OPTIONAL_FILE_RECEIVE, _hand_over_nothing),
    },
}


# An object that was loaded beforehand, if it was; an error if the kernel refused it then.
Loaded = Callable[[str], Programs | None]


class Tiers:
    """The optional objects of one agent. ``start`` once the main object is attached."""

    def __init__(self, main: BpfObject, pins: Pins, cgroup: Path, loaded: Loaded) -> None:
        self._loaded = loaded
        self._main = main
        self._pins = pins
        self._cgroup = cgroup
        self.links: dict[str, int] = {}  # open, by program
        self.abouts: list[About] = []  # of their programs

    def start(self) -> tuple[Tier, ...]:
        """Put in force what this kernel lets run, take away what it does not."""
        can_signal = self._main.can_signal
        # While an earlier agent's programs are replaced, nothing is left to them.
        self._set_kill(lib.AEGIS_KILL_HOOK if can_signal else lib.AEGIS_KILL_AGENT)
        in_hook = Tier(IN_HOOK, can_signal, "" if can_signal else _NO_SIGNAL)
        lacking = worth_trying(self._main)
        tracing = self._try(TRACING, lacking[TRACING])
        if tracing.active:
            self._set_kill(lib.AEGIS_KILL_TRACING)
        return in_hook, tracing, self._try(LSM, lacking[LSM])

    def _try(self, name: str, reason: str) -> Tier:
        """*reason*: why not even to try."""
        if not reason:
            try:
                self._activate(name)
            except (KernelError, OSError) as error:
                reason = str(error).partition("\n")[0]
        if reason:
            self._drop(name)
        return Tier(name, active=not reason, reason=reason)

    def _activate(self, name: str) -> None:
        programs = self._loaded(name) or load(name, self._main)
        try:
            if name == LSM:
                self._enter_cgroup(programs)
            for program, drill in OBJECTS[name].items():
                self.links[program] = programs.attach_tracing(program)
                self.abouts.append(ask(programs.program_fd(program)))
                see_running(self._main, program, drill)
        finally:
            programs.close()  # a link keeps its program
        for program in OBJECTS[name]:
            # In the place of an earlier agent's: both run until its pin goes.
            self._pins.pin(self.links[program], self._pins.link_path(program))

    def _enter_cgroup(self, programs: Programs) -> None:
        """Security hooks are the whole machine's; ours ask this map who is governed."""
        directory = open_cgroup(self._cgroup)
        try:
            programs.set_cgroup("place", directory)
        finally:
            os.close(directory)

    def _drop(self, name: str) -> None:
        for program in OBJECTS[name]:
            self._pins.remove_link(program)
            fd = self.links.pop(program, None)
            if fd is not None:
                os.close(fd)

    def _set_kill(self, way: int) -> None:
        table, row = self._main.maps["host"], layout("aegis_host")
        known = row.unpack(table.get(KEY_OF_ONE) or b"")
        table.put(KEY_OF_ONE, row.pack(**{**known, "kill": way}))

    def close(self) -> None:
        """Let go; what is pinned stays in force."""
        for fd in self.links.values():
            os.close(fd)
        self.links.clear()


def load(name: str, main: BpfObject) -> Programs:
    """The optional object, loaded beside *main*, whose maps it shares; the caller closes it.

    :raises KernelError: when the kernel refuses it.
    """
    programs = Programs(name)
    try:
        programs.share(main)
        programs.load()
    except BaseException:
        programs.close()
        raise
    return programs


def worth_trying(main: BpfObject) -> dict[str, str]:
    """Of each optional object why not even to try; empty: to try."""
    return {TRACING: _NOT_NEEDED if main.can_signal else "", LSM: lacking_lsm()}


def see_running(main: BpfObject, program: str, drill: Drill) -> None:
    """Return once *program*, attached, was seen to run in this process.

    :raises KernelError: when it is not.
    """
    table, key = main.maps["self_tests"], index_key(drill.index)
    row = layout("aegis_self_test")
    table.put(key, row.pack(tgid=os.getpid()))
    drill.act()
    runs = row.unpack(table.get(key) or b"")["runs"]
    table.put(key, row.pack())
    if not runs:
        raise KernelError(f"{program} was loaded and attached, but does not run")


def lacking_lsm(active: Path = ACTIVE_LSMS) -> str:
    """Why not even to try: the kernel's own list, where it can be read, lacks BPF."""
    try:
        names = active.read_text().strip()
    except OSError:  # no securityfs: trying tells
        return ""
    return "" if "bpf" in names.split(",") else f"bpf is not in {active}: {names}"


_NO_SIGNAL = "this kernel's cgroup programs may not send signals"
_NOT_NEEDED = f"not needed: {IN_HOOK} does its work"


NAMES = (IN_HOOK, *OBJECTS, GUARD)


def active_tiers(attached: Collection[str], host: Mapping[str, int]) -> tuple[str, ...]:
    """Names of what is in force, with or without an agent. *host*: ``struct aegis_host``."""
    links = set(attached)
    in_hook = (IN_HOOK,) if host["kill"] == lib.AEGIS_KILL_HOOK else ()
    objects = {name: set(programs) for name, programs in OBJECTS.items()}
    objects[GUARD] = set(GUARD_PROGRAMS)
    return *in_hook, *(name for name, programs in objects.items() if links >= programs)
