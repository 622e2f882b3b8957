# SPDX-License-Identifier: Apache-2.0
"""``tamper_guard``: nobody but Aegis changes what is ours in the kernel, or ends the agent.

Optional as the others in ``tiers``, and asked for. ``kernel/guard.bpf.c`` refuses; here is what
it has to know: which maps, links, programs, pins, mounts and cgroups are ours, and who we are.
Everything is a number, asked of the kernel.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aegis._bpf import lib
from aegis.bpf.adopt import About, ask
from aegis.bpf.cgroup import BPFFS, PINS, cgroup2_mount
from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import KEY_OF_ONE, Map, check
from aegis.bpf.object import BpfObject
from aegis.bpf.pins import Pins
from aegis.bpf.programs import Programs
from aegis.bpf.ring import Ring
from aegis.errors import KernelError

GUARD = "guard"
PROGRAMS = (
    *("aegis_guard_fork", "aegis_guard_exec", "aegis_guard_exit"),
    *("aegis_guard_bpf", "aegis_guard_map", "aegis_guard_prog"),
    *("aegis_guard_inode", "aegis_guard_rename", "aegis_guard_chmod", "aegis_guard_chown"),
    *("aegis_guard_umount", "aegis_guard_mount", "aegis_guard_move"),
    *("aegis_guard_kill", "aegis_guard_sigio", "aegis_guard_trace", "aegis_guard_limit"),
    *("aegis_guard_open", "aegis_guard_moved"),
)
NOT_ASKED_FOR = "not asked for: [global] tamper_guard is false"
WAY_OUT = (
    "tamper_guard is in force, and this is not Aegis to it: only what systemd starts is. "
    "'systemctl start aegis' starts an agent, 'systemctl start aegis-unload' takes everything "
    "out of the kernel; or boot with aegis=off"
)
FOLDER = "guard"  # of pins, beside those of maps and links
TOLD = ("refusals", "refused")
UNIT = "/system.slice/aegis.service"
ABOVE, OURS = 1, 2  # how a mount, a directory of pins or a cgroup is guarded
WHAT = {
    lib.AEGIS_REFUSED_MAP: "to open or change table",
    lib.AEGIS_REFUSED_LINK: "to take off or replace link",
    lib.AEGIS_REFUSED_PROGRAM: "to open program",
    lib.AEGIS_REFUSED_PIN: "to open or change pin",
    lib.AEGIS_REFUSED_MOUNT: "to change mount",
    lib.AEGIS_REFUSED_SIGNAL: "to send the agent signal",
    lib.AEGIS_REFUSED_TRACE: "to trace process",
    lib.AEGIS_REFUSED_LIMIT: "to set the agent's limit",
    lib.AEGIS_REFUSED_CGROUP: "to stop the agent's cgroup",
}
_NAMES = {
    getattr(lib, f"AEGIS_REFUSED_{name.upper()}"): name
    for name in ("map", "link", "program", "pin", "mount", "signal", "trace", "limit", "cgroup")
}
Thing = tuple[int, int]  # enum aegis_guarded_kind, number


@dataclass(frozen=True)
class Refusal:
    """What was refused to whom; text holds undecodable bytes as surrogate escapes."""

    boot_ns: int
    kind: str
    what: str
    number: int
    pid: int
    uid: int
    comm: str
    path: str  # "": not known

    def __str__(self) -> str:
        return f"refused {self.path or self.comm} (PID {self.pid}) {self.what} {self.number}"


class Guard:
    """Of one agent; *main* is attached and everything of it pinned in *pins*."""

    def __init__(self, main: BpfObject, pins: Pins) -> None:
        self._main = main
        self._pins = pins
        self._links: dict[str, int] = {}
        self._programs = Programs(GUARD)
        self._ring: Ring | None = None

    def start(self, links: Iterable[int], programs: Iterable[About]) -> None:
        """Refuse from now on; beside an earlier agent's guard, which ends then.

        *links*, *programs*: ours besides those of the main object.

        :raises KernelError: when this kernel does not let it run.
        """
        self._programs.share(self._main)
        self._reuse_told()
        self._programs.load()
        self._pin_told()
        self._ring = Ring(
            self._programs.map_fd("refusals"), "aegis_refusal", lib.AEGIS_REFUSALS_BYTES
        )
        self._write_row()
        self._enter_guardians()
        for name in PROGRAMS:
            self._links[name] = self._programs.attach_tracing(name)
        self._see_running()
        self._table("guarded").fill(
            [
                (layout("aegis_guarded").pack(kind=kind, number=number), index_key(how))
                for (kind, number), how in self._things(links, programs).items()
            ]
        )
        self._see_ourselves()  # before any of it is pinned: it would be there to stay
        for name, fd in self._links.items():
            self._pins.pin(fd, self._pins.link_path(name))
            self.add_link(fd, self._pins.link_path(name))

    def _reuse_told(self) -> None:
        """What was refused while no agent ran is in there, and not told yet."""
        for name in TOLD:
            fd = lib.aegis_get_pinned(os.fsencode(self._pins.folder / FOLDER / name))
            if fd >= 0:
                with contextlib.suppress(KernelError):  # another version's
                    self._programs.reuse(name, fd)
                os.close(fd)

    def _pin_told(self) -> None:
        folder = self._pins.folder / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in TOLD:
            self._pins.pin(self._programs.map_fd(name), folder / name)

    def _write_row(self) -> None:
        by_init = _own_cgroup() == UNIT and os.getppid() == 1
        self._table("guard").put(
            KEY_OF_ONE,
            layout("aegis_guard").pack(
                device=_device(PINS), by_init=by_init, tester=os.getpid(), alive=0
            ),
        )

    def _enter_guardians(self) -> None:
        kinds = {os.getpid(): lib.AEGIS_GUARDIAN_AEGIS}
        if os.getppid() > 1:
            kinds[os.getppid()] = lib.AEGIS_GUARDIAN_KEEPER
        entries = []
        for tgid, kind in kinds.items():
            proc = self._main.maps["procs"].get(index_key(tgid))
            if proc is not None:  # else it has ended
                start = layout("aegis_proc").unpack(proc)["start_boot_ns"]
                row = layout("aegis_guardian").pack(start_boot_ns=start, kind=kind)
                entries.append((index_key(tgid), row))
        self._table("guardians").fill(entries)
        self._change_row(alive=len(entries))

    def _see_running(self) -> None:
        """An LSM program may load, attach and never run."""
        runs = self._change_row()["runs"]  # reading it is a bpf() call
        runs = self._change_row(tester=0)["runs"] - runs
        if not runs:
            raise KernelError("aegis_guard_bpf was loaded and attached, but does not run")

    def _see_ourselves(self) -> None:
        """Our number and start are another process's where there is a process namespace between."""
        fd = lib.aegis_get_pinned(os.fsencode(self._pins.map_path("active")))
        if fd < 0:
            raise KernelError("the guard does not take this process for Aegis: in a container?")
        os.close(fd)

    def _change_row(self, **values: int) -> dict[str, int]:
        row = layout("aegis_guard")
        known = row.unpack(self._table("guard").get(KEY_OF_ONE) or b"")
        if values:
            self._table("guard").put(KEY_OF_ONE, row.pack(**known | values))
        return known

    def _things(self, links: Iterable[int], programs: Iterable[About]) -> dict[Thing, int]:
        mine = (self._main, self._programs)
        abouts = [ask(loaded.program_fd(n)) for loaded in mine for n in loaded.program_names()]
        abouts += programs
        maps = {number for about in abouts for number in about.maps}
        maps |= {table.number for table in self._main.maps.values()}
        maps |= {self._table(name).number for name in ("refusals", "refused")}
        fds = (*links, *self._links.values())
        return {
            **{(int(lib.AEGIS_GUARDED_MAP), number): OURS for number in maps},
            **{(int(lib.AEGIS_GUARDED_PROGRAM), about.number): OURS for about in abouts},
            **{(int(lib.AEGIS_GUARDED_LINK), _link_number(fd)): OURS for fd in fds},
            **{(int(lib.AEGIS_GUARDED_PIN), n): how for n, how in _pins(self._pins).items()},
            **{(int(lib.AEGIS_GUARDED_MOUNT), n): how for n, how in _mounts().items()},
            **{(int(lib.AEGIS_GUARDED_CGROUP), n): how for n, how in _cgroups().items()},
        }

    def add_link(self, fd: int, path: Path) -> None:
        """Guard one that was made later, and its pin."""
        pack = layout("aegis_guarded").pack
        self._table("guarded").fill(
            [
                (pack(kind=lib.AEGIS_GUARDED_LINK, number=_link_number(fd)), index_key(OURS)),
                (pack(kind=lib.AEGIS_GUARDED_PIN, number=path.lstat().st_ino), index_key(OURS)),
            ]
        )

    def drain(self) -> Iterator[Refusal]:
        """What was refused since the last call."""
        while self._ring is not None and (records := self._ring.drain()):
            yield from map(_to_refusal, records)

    def counts(self) -> dict[str, int]:
        """How often what was refused, told or not."""
        table = self._table("refused")
        size = layout("aegis_refused_count")
        return {
            name: size.unpack(table.get(index_key(index)) or b"")["count"]
            for index, name in _NAMES.items()
        }

    def _table(self, name: str) -> Map:
        keys = {"guarded": layout("aegis_guarded").size}
        values = {"guard": "aegis_guard", "guardians": "aegis_guardian"}
        values |= {"refused": "aegis_refused_count"}
        size = layout(values[name]).size if name in values else 4
        return Map(name, self._programs.map_fd(name), keys.get(name, 4), size)

    def lift(self) -> None:
        """Refuse nothing any more."""
        lift(self._pins)
        self.close()

    def close(self) -> None:
        """Let go; what is pinned goes on."""
        for fd in self._links.values():
            os.close(fd)
        self._links.clear()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._programs.close()


def lift(pins: Pins, *, told: bool = True) -> None:
    """Also one that an earlier agent left. *told*: nobody has to know any more what it refused."""
    for name in PROGRAMS:
        pins.remove_link(name)
    if not told:
        return
    folder = pins.folder / FOLDER
    if folder.is_dir():
        shutil.rmtree(folder)


def is_pinned(pins: Pins) -> bool:
    return pins.link_path("aegis_guard_bpf").exists()


def require_aegis(pins: Pins) -> None:
    """
    :raises KernelError: when a guard is in force and does not take us for Aegis.
    """
    if not is_pinned(pins):
        return
    fd = lib.aegis_get_pinned(os.fsencode(pins.map_path("active")))
    if fd < 0:
        raise KernelError(WAY_OUT)
    os.close(fd)


def _to_refusal(record: bytes) -> Refusal:
    fields = layout("aegis_refusal").unpack(record)
    return Refusal(
        boot_ns=fields["boot_ns"],
        kind=_NAMES[fields["what"]],
        what=WHAT[fields["what"]],
        number=fields["number"],
        pid=fields["tgid"],
        uid=fields["uid"],
        comm=os.fsdecode(text_of(fields["comm"])),
        path=os.fsdecode(text_of(fields["path"])),
    )


def _link_number(fd: int) -> int:
    return check(lib.aegis_link_number(fd), "asking about a link")


def _device(path: Path) -> int:
    """As the kernel keeps it: it shows user space another encoding."""
    device = path.stat().st_dev
    return os.major(device) << 20 | os.minor(device)


def _pins(pins: Pins) -> dict[int, int]:
    """Inodes; of the directory of all instances only that it stays."""
    mine = (pins.instance, *pins.instance.rglob("*"))
    return {PINS.lstat().st_ino: ABOVE} | {path.lstat().st_ino: OURS for path in mine}


def _mounts() -> dict[int, int]:
    """Of the bpffs and what it is mounted in but the root: for init, and for us."""
    found: dict[int, int] = {}
    for process in ("1", "self"):
        with contextlib.suppress(OSError):  # init's are not for everybody to see
            found |= mounts_in(Path(f"/proc/{process}/mountinfo").read_text())
    return found


def mounts_in(mountinfo: str) -> dict[int, int]:
    rows = [line.split()[:5] for line in mountinfo.splitlines()]
    parents = {int(number): int(parent) for number, parent, *_ in rows}
    ours = [int(row[0]) for row in rows if row[4] == str(BPFFS)]
    found = dict.fromkeys(ours, OURS)
    for number in ours:
        above = parents[number]
        while parents.get(above, above) in parents:  # else it is the root
            found.setdefault(above, ABOVE)
            above = parents[above]
    return found


def _own_cgroup() -> str:
    text = Path("/proc/self/cgroup").read_text()
    return next((li[3:] for li in text.splitlines() if li.startswith("0::")), "/")


def _cgroups() -> dict[int, int]:
    """Ours and those above it, but the root, where nothing can be stopped."""
    mount = cgroup2_mount()
    place = mount / _own_cgroup().lstrip("/")
    found: dict[int, int] = {}
    while place != mount and place.is_dir():
        found[place.stat().st_ino] = ABOVE if found else OURS
        place = place.parent
    return found


def refusals_by(refusals: Iterable[Refusal]) -> Mapping[tuple[str, int], list[Refusal]]:
    """By what and whose: who tries again and again is told of once a look."""
    found: dict[tuple[str, int], list[Refusal]] = {}
    for refusal in refusals:
        found.setdefault((refusal.what, refusal.pid), []).append(refusal)
    return found
