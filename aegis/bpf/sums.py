# SPDX-License-Identifier: Apache-2.0
"""The kernel's sums of all decisions, taken out in whole epochs (``kernel/history.bpf.h``).

``close_epoch`` → ``read_closed`` → keep them safe → ``delete``. Who is killed
anywhere in between loses nothing: sums stay until they are deleted, and whoever comes
next knows by their epoch which of them are safe already.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aegis._bpf import lib
from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import KEY_OF_ONE, Map, check
from aegis.bpf.ring import DIRECTION_NAMES, VERDICTS
from aegis.events.event import IdentityFlag
from aegis.events.facts import Program, Sum

ROOM_FOR = lib.AEGIS_PROGRAMS_MAX // 2  # programs; above, those that are safe are deleted
SUM_MAPS = ("history", "slots", "programs", "epoch")


@dataclass(frozen=True)
class Epoch:
    """``struct aegis_epoch``."""

    taken: int
    current: int
    untaken: int


class KernelSums:
    """The ``SUM_MAPS`` among *maps*; used by one thread at a time."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._sums, self._slots, self._programs, self._epoch = (maps[name] for name in SUM_MAPS)
        self._numbered = b""

    @property
    def map_id(self) -> int:
        """With the boot, it names these sums."""
        return self._sums.number

    def epoch(self) -> Epoch:
        row = layout("aegis_epoch").unpack(self._epoch.get(KEY_OF_ONE) or b"")
        return Epoch(**row)

    def close_epoch(self) -> None:
        """Begin the next epoch; when this returns, nothing is added to earlier ones any more."""
        now = self.epoch()
        self._put(replace(now, current=now.current + 1))
        check(lib.aegis_barrier(), "waiting for running programs")

    def read_closed(self) -> "Sums":
        """The sums of every epoch but the current one."""
        return self._read(skip=self.epoch().current)

    def delete(self, closed: "Sums") -> None:
        """Delete what ``read_closed`` returned: it is safe."""
        now = self.epoch()
        taken = now.taken + closed.decisions(since=now.untaken)
        self._put(Epoch(taken, now.current, now.current))
        self._sums.clear(closed.keys)
        free = bytes(layout("aegis_slot").size)
        self._slots.fill([(index_key(number), free) for number in closed.places])

    def kept(self) -> dict[str, int]:
        """How many decisions were "taken" out, and how many are "pending" in the kernel."""
        while True:
            now = self.epoch()
            pending = self._read().decisions(since=now.untaken)
            if self.epoch() == now:  # else some went from the one to the other meanwhile
                return {"taken": now.taken, "pending": pending}

    def _read(self, skip: int | None = None) -> "Sums":
        """Those of all epochs but *skip*."""
        size = layout("aegis_slot").size
        keys, values = self._sums.read(lib.AEGIS_HISTORY_MAX, skip)
        _, slots = self._slots.read(2 * lib.AEGIS_SLOTS)
        places = [
            place
            for place, row in enumerate(_rows("aegis_slot", slots))
            if row[-1] == lib.AEGIS_SLOT_READY and row[0] != skip
        ]
        used = b"".join(slots[place * size : (place + 1) * size] for place in places)
        return Sums(keys, values, places, used)

    def programs(self) -> dict[int, Program]:
        """Every program that has a number."""
        keys, values = self._programs.read(lib.AEGIS_PROGRAMS_MAX)
        rows = zip(_rows("aegis_program", keys), struct.iter_unpack("=I", values), strict=True)
        self._numbered = keys
        return {
            number: Program(os.fsdecode(text_of(path)), IdentityFlag(identity))
            for (identity, path), (number,) in rows
            if number
        }

    def make_room(self) -> None:
        """Delete the programs last asked for, if they are many; their numbers go on meaning them.

        Only once they are safe: a process keeps its program's number.
        """
        if len(self._numbered) > self._programs.key_size * ROOM_FOR:
            self._programs.clear(self._numbered)
        self._numbered = b""

    def _put(self, value: Epoch) -> None:
        row = layout("aegis_epoch").pack(
            taken=value.taken, current=value.current, untaken=value.untaken
        )
        self._epoch.put(KEY_OF_ONE, row)


@dataclass(frozen=True)
class Sums:
    """Sums as the kernel has them: tens of thousands, so they are made one by one."""

    keys: bytes
    values: bytes
    places: list[int]  # of the slots
    slots: bytes

    def __len__(self) -> int:
        return len(self.keys) // layout("aegis_history_key").size + len(self.places)

    def __iter__(self) -> Iterator[Sum]:
        return map(_sum, self._rows())

    def decisions(self, since: int) -> int:
        """How many there were in epochs from *since* on."""
        counted = layout("aegis_slot").names.index("sum.count")
        return sum(row[counted] for row in self._rows() if row[0] >= since)

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        """Of ``struct aegis_history_key`` and then ``struct aegis_history``."""
        pairs = zip(
            _rows("aegis_history_key", self.keys), _rows("aegis_history", self.values), strict=True
        )
        yield from (key + value for key, value in pairs)
        # A slot is the same, and two words of the kernel's own.
        yield from (row[:-2] for row in _rows("aegis_slot", self.slots))


def _rows(name: str, data: bytes) -> Iterator[tuple[Any, ...]]:
    return layout(name).struct.iter_unpack(data)


def _sum(row: tuple[Any, ...]) -> Sum:
    epoch, program, port, direction, protocol, verdict, is_socket, _, addr, *rest = row
    count, reports, first, last, _ = rest
    return Sum(
        epoch, program, DIRECTION_NAMES[direction], protocol, VERDICTS[verdict],
        b"" if is_socket else addr, port, count, reports, first, last,
    )  # fmt: skip
