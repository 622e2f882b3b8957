# SPDX-License-Identifier: Apache-2.0
"""Programs that an earlier agent of the same build loaded, taken over instead of loaded again.

The verifier takes most of a start. So whoever loads the programs also pins them, with
the maps of their constants, in ``ABI/programs/BUILD``; BUILD is a digest of the object they
were loaded from, and each name ends in the kernel's own digest of its instructions. Nothing is
taken over on the word of its name: the kernel is asked what each one is.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from aegis._bpf import ffi, lib
from aegis.bpf.maps import Map, check
from aegis.bpf.pins import Pins
from aegis.bpf.programs import Programs
from aegis.errors import KernelError


@dataclass(frozen=True)
class About:
    """What the kernel says of one program."""

    number: int
    tag: str
    maps: frozenset[int]


def build() -> str:
    return str(ffi.string(lib.aegis_build()).decode())


def ask(fd: int) -> About:
    """The program *fd*."""
    told = ffi.new("struct aegis_program_info *")
    check(lib.aegis_ask_program(fd, told), "asking about a program")
    maps = frozenset(told.maps[index] for index in range(told.map_count))
    return About(told.id, bytes(told.tag).hex(), maps)


def link_program(fd: int) -> int:
    """The number of the program that the link *fd* runs."""
    return check(lib.aegis_link_program(fd), "asking about a link")


def keep(loaded: Programs, pins: Pins) -> None:
    """Pin every program of *loaded*, and its constants, for whoever comes next."""
    folder = _folder(pins)
    if folder.is_dir():
        shutil.rmtree(folder)  # half of it, or not what it should be
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    for name in loaded.constants():
        pins.pin(loaded.map_fd(name), folder / _file(name))
    for name in loaded.program_names():
        fd = loaded.program_fd(name)
        pins.pin(fd, folder / f"{name}-{ask(fd).tag}")


def pinned_programs(pins: Pins) -> dict[Path, int]:
    """What ``keep`` pinned, and the inode of each."""
    folder = _folder(pins)
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {Path(entry.path): entry.inode() for entry in entries}


def forget_others(pins: Pins) -> None:
    """Remove the programs of other builds: none of them is attached any more."""
    for folder in _folder(pins).parent.iterdir():
        if folder != _folder(pins):
            shutil.rmtree(folder)


def adopt(opened: Programs, pins: Pins, maps: dict[str, int]) -> None:
    """Have the programs of *opened* be the pinned ones, which use *maps* (open).

    :raises KernelError: why not; then nothing was adopted.
    """
    folder = _folder(pins)
    if not folder.is_dir():
        raise KernelError("no programs of this build are pinned")
    known = {Map(name, fd, 0, 0).number for name, fd in maps.items()}
    known |= {_constants(opened, pins, name, folder / _file(name)) for name in opened.constants()}
    tags = dict(path.name.rsplit("-", 1) for path in folder.iterdir() if "-" in path.name)
    found: dict[str, int] = {}
    try:
        for name in opened.program_names():
            if name not in tags:
                raise KernelError(f"{name} is not pinned")
            found[name] = pins.open(folder / f"{name}-{tags[name]}")
            _check_program(name, ask(found[name]), tags[name], known)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    opened.adopted = found


def _check_program(name: str, about: About, tag: str, maps: set[int]) -> None:
    if about.tag != tag:
        raise KernelError(f"the pinned {name} is another program than was pinned")
    if not about.maps <= maps:
        raise KernelError(f"the pinned {name} uses other maps than those that are pinned")


def _constants(opened: Programs, pins: Pins, name: str, path: Path) -> int:
    """The number of the map at *path*, which holds the constants *name* for good."""
    fd = pins.open(path)
    try:
        same = lib.aegis_has_constants(opened.handle, name.encode(), fd)
        if not check(same, f"reading the constants {name}"):
            raise KernelError(f"the pinned constants {name} are others than this build's")
        table = Map(name, fd, 0, 0)
        if not table.is_frozen:
            raise KernelError(f"the pinned constants {name} can be changed")
        return table.number
    finally:
        os.close(fd)


def _folder(pins: Pins) -> Path:
    return pins.folder / "programs" / build()


def _file(section: str) -> str:
    return section.replace(".", "_")  # bpffs keeps names with a dot to itself
