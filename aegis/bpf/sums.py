# SPDX-License-Identifier: Apache-2.0
"""The kernel's sums of all decisions, taken out in whole epochs (``kernel/history.bpf.h``).

``close_epoch`` → ``read_closed`` → keep them safe → ``delete``. Who is killed
anywhere in between loses nothing: sums stay until they are deleted, and whoever comes
next knows by their epoch which of them are safe already.
"""

import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aegis._bpf import ffi, lib
from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import KEY_OF_ONE, Map, check
from aegis.bpf.ring import DIRECTION_NAMES, VERDICTS
from aegis.events.event import IdentityFlag
from aegis.events.facts import ANYWHERE, Program, Sum

ROOM_FOR = lib.AEGIS_PROGRAMS_MAX // 2  # programs; above, those that are safe are deleted
SUM_MAPS = ("history", "slots", "programs", "epoch", "history_fill")
_LAST = 2**32 - 1  # no epoch's number
_NO_ADDRESS = {lib.AEGIS_SUM_SOCKET: b"", lib.AEGIS_SUM_REST: ANYWHERE}


@dataclass(frozen=True)
class Epoch:
    """``struct aegis_epoch``."""

    taken: int
    current: int
    untaken: int


class KernelSums:
    """The ``SUM_MAPS`` among *maps*; used by one thread at a time."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        found = (maps[name] for name in SUM_MAPS)
        self._sums, self._slots, self._programs, self._epoch, self._fill = found
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
        return Sums(self._sums, self._slots, skip=self.epoch().current)

    def delete(self, closed: "Sums") -> None:
        """Delete what ``read_closed`` returned: it is safe."""
        now = self.epoch()
        taken = now.taken + self._decisions(now.untaken, now.current)
        self._put(Epoch(taken, now.current, now.current))
        closed.delete()
        self._fill.put(index_key(1 - now.current % 2), index_key(0))

    def kept(self) -> dict[str, int]:
        """How many decisions were "taken" out, and how many are "pending" in the kernel."""
        while True:
            now = self.epoch()
            pending = self._decisions(now.untaken, _LAST)
            if self.epoch() == now:  # else some went from the one to the other meanwhile
                return {"taken": now.taken, "pending": pending}

    def _decisions(self, since: int, before: int) -> int:
        """How many there were in these epochs: counted in C, for there may be many sums."""
        total = ffi.new("uint64_t *")
        result = lib.aegis_count_sums(self._sums.fd, self._slots.fd, since, before, total)
        check(result, "adding up the kernel's sums")
        return int(total[0])

    def waiting(self) -> int:
        """About how many entries the table has."""
        rows = (self._fill.get(index_key(parity)) or b"" for parity in (0, 1))
        return sum(int.from_bytes(row, sys.byteorder) for row in rows)

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


class Sums:
    """Sums of all epochs but *skip* in the kernel: tens of thousands, so they are read in pieces.

    Each time anew: the same as long as none of those epochs is current.
    """

    def __init__(self, table: Map, slots: Map, skip: int | None = None) -> None:
        self._table, self._slots, self._skip = table, slots, skip
        self.count = 0  # that were yielded

    def __iter__(self) -> Iterator[Sum]:
        for row in self._rows():
            self.count += 1
            yield _sum(row)

    def delete(self) -> None:
        """Those in the table and those in slots."""
        for keys, _ in self._table.batches(self._skip):
            self._table.clear(keys)
        free = bytes(layout("aegis_slot").size)
        for places, _ in self._used():
            self._slots.fill([(place, free) for place in places])

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        """Of ``struct aegis_history_key`` and then ``struct aegis_history``."""
        for keys, values in self._table.batches(self._skip):
            parts = (_rows("aegis_history_key", keys), _rows("aegis_history", values))
            yield from (key + value for key, value in zip(*parts, strict=True))
        # A slot is the same, and two words of the kernel's own.
        yield from (row[:-2] for _, rows in self._used() for row in rows)

    def _used(self) -> Iterator[tuple[list[bytes], list[tuple[Any, ...]]]]:
        """The keys and the rows of slots in use."""
        for keys, slots in self._slots.batches():
            used = [
                (keys[4 * place : 4 * place + 4], row)
                for place, row in enumerate(_rows("aegis_slot", slots))
                if row[-1] == lib.AEGIS_SLOT_READY and row[0] != self._skip
            ]
            yield [key for key, _ in used], [row for _, row in used]


def _rows(name: str, data: bytes) -> Iterator[tuple[Any, ...]]:
    return layout(name).struct.iter_unpack(data)


def _sum(row: tuple[Any, ...]) -> Sum:
    epoch, program, port, direction, protocol, verdict, kind, _, addr, *rest = row
    count, reports, first, last, _ = rest
    return Sum(
        epoch, program, DIRECTION_NAMES[direction], protocol, VERDICTS[verdict],
        _NO_ADDRESS.get(kind, addr), port, count, reports, first, last,
    )  # fmt: skip
