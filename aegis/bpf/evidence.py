# SPDX-License-Identifier: Apache-2.0
"""Whether what was put into the kernel is still there, and still the same.

Asked of the kernel each time: links by their descriptors and by their pins, programs
by number, other pins by their inodes, tables by a digest of every entry that was in them
when we last wrote them.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aegis._bpf import lib
from aegis.bpf.adopt import ask, link_program, pinned_programs
from aegis.bpf.generation import index_key
from aegis.bpf.maps import Digest
from aegis.bpf.object import MAPS, UNKEYED_MAPS, BpfObject
from aegis.bpf.pins import Pins

# What only the agent writes: the policy in force and what its texts are called.
HASHES = ("hosts", "nets", "rules", "exes", "paths", "cmdlines", "units", "spared")
ARRAYS = ("active", "configs", "host")  # whole; of the others, the rows that were put there


@dataclass
class Evidence:
    """Of one agent's links (*links*: by program name), maps and pins. ``take``, then ``look``.

    Only what we wrote ourselves since is taken anew: what somebody else changed stays told of
    until it is put right, whatever else we do meanwhile.
    """

    loaded: BpfObject
    pins: Pins
    links: Mapping[str, int]
    _programs: dict[str, int] = field(default_factory=dict)
    _maps: dict[str, int] = field(default_factory=dict)
    _digests: dict[str, Digest] = field(default_factory=dict)
    _writes: dict[str, int] = field(default_factory=dict)
    _files: dict[Path, int] = field(default_factory=dict)

    def take(self) -> None:
        """What is ours is what must stay: of tables, of those we wrote since the last call.

        :raises KernelError: when it cannot be read.
        """
        maps = self.loaded.maps
        for name, link in self.links.items():
            if name not in self._programs:
                self._programs[name] = self._program(name, link)
        if not self._maps:
            number, fd = lib.aegis_map_number, self.loaded.map_fd
            self._maps = {name: int(number(fd(name))) for name in (*MAPS, *UNKEYED_MAPS)}
            self._files = pinned_programs(self.pins)
        for name in (*HASHES, *ARRAYS):
            expected = self.loaded.expected(name)
            if expected is not None:
                self._digests[name] = expected
            elif self._writes.get(name) != maps[name].writes:
                self._writes[name], self._digests[name] = maps[name].writes, self._digest(name)

    def _program(self, name: str, link: int) -> int:
        if name in self.loaded.program_names():
            return ask(self.loaded.program_fd(name)).number
        return link_program(link)  # of another object, which was closed once it was attached

    def look(self, *, is_brief: bool = False) -> Iterator[str]:
        """Yield what is not as it was, a line each.

        *is_brief*: without the tables of which we know what must be in them. ``apply`` asks those
        itself, after it has written; nothing that we do has others' entries pass for ours.

        :raises KernelError: when it cannot be read.
        """
        for name in self._programs:
            yield from self._look_at_link(name)
        for name, number in self._maps.items():
            if _pinned_number(self.pins, self.pins.map_path(name)) != number:
                yield f"the pin of table '{name}' is gone or another's"
        files = pinned_programs(self.pins)
        for path, inode in self._files.items():
            if files.get(path) != inode:
                yield f"the pin of program '{path.name}' is gone or another's"
        if not self.pins.is_complete():
            yield "the mark is gone by which the next agent takes over what is in force"
        for name, digest in self._digests.items():
            if is_brief and self.loaded.expected(name) is not None:
                continue
            if self._digest(name) != digest:
                yield _changed(name)
        for name in sorted(self.loaded.altered_arrays()):
            yield _changed(name)

    def found_writing(self) -> frozenset[str]:
        """What was found, and is no more, while we wrote; since the last call."""
        return frozenset(map(_changed, self.loaded.take_foreign()))

    def distrust(self) -> None:
        """Somebody wrote tables of ours: what we write next leaves nothing of theirs."""
        self.loaded.distrust()

    def _look_at_link(self, name: str) -> Iterator[str]:
        fd = self.links.get(name)
        if fd is None:
            return  # no longer wanted: nobody else takes it out of there
        if not lib.aegis_link_attached(fd):
            yield f"{name} was taken off its cgroup"
        elif link_program(fd) != self._programs[name]:
            yield f"{name} was replaced by another program"
        path = self.pins.link_path(name)
        pinned = lib.aegis_get_pinned(os.fsencode(path))
        if pinned < 0:
            yield f"the pin of {name} is gone"
            return
        try:
            if lib.aegis_link_number(pinned) != lib.aegis_link_number(fd):
                yield f"the pin of {name} is another's"
        finally:
            os.close(pinned)

    def _digest(self, name: str) -> Digest:
        table = self.loaded.maps[name]
        if name not in ARRAYS:
            return table.digest()
        return 1, hash(tuple(table.get(index_key(index)) for index in range(table.room)))


def _changed(name: str) -> str:
    return f"table '{name}' was changed by somebody else"


def _pinned_number(pins: Pins, path: os.PathLike[str]) -> int:
    fd = lib.aegis_get_pinned(os.fsencode(path))
    if fd < 0:
        return -1
    try:
        return int(lib.aegis_map_number(fd))
    finally:
        os.close(fd)
