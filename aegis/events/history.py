# SPDX-License-Identifier: Apache-2.0
"""History: which program went where, how often, first and last, in a small SQLite file.

One row for each program, direction, protocol, address, port and verdict. Times
are kept as the boot and CLOCK_BOOTTIME in it, and each boot has its offset to the
wall clock as last known: when a clock that was wrong at boot is set right, the
times that were noted before are right too.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import islice
from pathlib import Path

from aegis.errors import HistoryDamagedError, HistoryError
from aegis.events import history_sql as sql
from aegis.events.event import IdentityFlag
from aegis.events.facts import ANYWHERE, UNKNOWN_PROGRAM, Fact, Program, Sum
from aegis.policy.model import Address, Direction, Verdict

HISTORY_PATH = Path("/var/lib/aegis/history.db")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BATCH = 2048  # sums held at a time
_TOGETHER = 128  # added in one statement; sqlite takes 32,766 values
_ADD_MANY = sql.add(_TOGETHER)
_FORGET = 16384  # rows forgotten at a time
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WAIT_S = 5.0  # for another process that holds the file's lock


@dataclass(frozen=True)
class Totals:
    """``taken`` decisions = counts in all rows + ``forgotten`` with rows over the bounds."""

    taken: int
    rows: int
    decisions: int  # in rows
    forgotten_rows: int
    forgotten: int  # decisions


class History:
    """The file at *path*, made when it is not there; used by one thread at a time.

    *read_only*: it must be there, and is not changed.
    :raises HistoryError: here and in every method, when the file does not serve
    """

    def __init__(self, path: Path = HISTORY_PATH, *, read_only: bool = False) -> None:
        self.path = path
        with self._errors():
            if not read_only:
                _make_file(path)
            mode = "ro" if read_only else "rw"
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(
                uri, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(read_only=read_only)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self, *, read_only: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, sql.VERSION):
            raise HistoryError(f"{self.path}: of another version of Aegis ({version})")
        if read_only:
            return
        # A crash of the agent costs nothing; one of the machine at most the last seconds.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            self._db.executescript(f"BEGIN;{sql.TABLES}PRAGMA user_version = {sql.VERSION};COMMIT;")

    def untaken(self, origin: str) -> int:
        """The first epoch of *origin*, one load of the kernel's maps, that is not in here."""
        with self._errors():
            query = "SELECT untaken FROM origin WHERE origin = ?"
            row = self._db.execute(query, (origin,)).fetchone()
        return int(row[0]) if row else 0

    def take(
        self,
        origin: str,
        sums: Iterable[Sum],
        programs: Callable[[], Mapping[int, Program]],
        *,
        untaken: int,
        offset_ns: int,
    ) -> None:
        """Add *sums* of epochs before *untaken*, all or nothing; those that are in are left out.

        *programs*: asked what numbers mean that are new. *offset_ns*: see ``clock_offset_ns``.
        """
        with self._errors(), self._transaction():
            boot, since = self._boot(offset_ns), self.untaken(origin)
            fresh, taken = (one for one in sums if one.epoch >= since), 0
            while batch := list(islice(fresh, _BATCH)):
                ids = self._ids(origin, {one.program for one in batch}, programs)
                self._add([_row(one, ids[one.program], boot) for one in batch])
                taken += sum(one.decisions for one in batch)
            self._db.execute(
                "INSERT INTO origin VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET untaken = excluded.untaken, taken = taken + excluded.taken",
                (origin, untaken, taken),
            )

    def _add(self, rows: list[tuple[object, ...]]) -> None:
        """Many in one statement: each is a fight for the interpreter's lock while events come."""
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            if len(some) == _TOGETHER:
                self._db.execute(_ADD_MANY, [value for row in some for value in row])
            else:
                self._db.executemany(sql.add(1), some)

    def _boot(self, offset_ns: int) -> int:
        self._db.execute(
            "INSERT INTO boot (boot_id, offset_ns) VALUES (?, ?) ON CONFLICT DO UPDATE"
            " SET offset_ns = excluded.offset_ns",
            (boot_id(), offset_ns),
        )
        query = "SELECT id FROM boot WHERE boot_id = ?"
        return int(self._db.execute(query, (boot_id(),)).fetchone()[0])

    def _ids(
        self, origin: str, numbers: set[int], programs: Callable[[], Mapping[int, Program]]
    ) -> dict[int, int]:
        """The program of each of the kernel's *numbers*."""
        query = "SELECT program FROM number WHERE origin = ? AND number = ?"
        found = {number: self._db.execute(query, (origin, number)).fetchone() for number in numbers}
        ids = {number: int(row[0]) for number, row in found.items() if row}
        if new := numbers - ids.keys():
            known = programs()
            for number in new:
                ids[number] = self._program(known.get(number, UNKNOWN_PROGRAM))
                if number in known:
                    row = (origin, number, ids[number])
                    self._db.execute("INSERT INTO number VALUES (?, ?, ?)", row)
        return ids

    def _program(self, program: Program) -> int:
        row = (os.fsencode(program.path), int(program.identity))
        self._db.execute("INSERT OR IGNORE INTO program (path, identity) VALUES (?, ?)", row)
        query = "SELECT id FROM program WHERE path = ? AND identity = ?"
        return int(self._db.execute(query, row).fetchone()[0])

    def facts(self, since: float | None = None) -> Iterator[Fact]:
        """Yield every fact last seen at wall clock time *since* or later, in that order."""
        bound = -(1 << 62) if since is None else int(since * 1e9)
        with self._errors():
            # All at once: who reads them may wait for hours, in a pager, and what a read
            # that goes on needs of the file's log cannot be overwritten meanwhile.
            rows = self._db.execute(sql.FACTS, (bound,)).fetchall()
        for row in rows:
            path, identity, direction, protocol, address, port, verdict, *times, n, off = row
            yield Fact(
                Program(os.fsdecode(path), IdentityFlag(identity)), Direction(direction),
                protocol, _peer(address, direction), port, Verdict(verdict),
                times[0] / 1e9, times[1] / 1e9, n, off, address == ANYWHERE,
            )  # fmt: skip

    def rows(self) -> int:
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM flow").fetchone()[0])

    def forget(self, *, before: float | None, rows: int) -> int:
        """Delete what was last seen *before* that time, then what is over *rows*; return how many.

        The oldest of the program that has the most go first.
        """
        with self._errors(), self._transaction():
            had = self._in_rows()
            if before is not None:
                self._db.execute(sql.FORGET_OLD, (int(before * 1e9),))
            while (excess := self.rows() - rows) > 0:
                program, has = self._db.execute(sql.BIGGEST).fetchone()
                some = min(excess, max(1, has // 2), _FORGET)
                self._db.execute(sql.FORGET_SOME, (program, some))
            left = self._in_rows()
            gone = (had[0] - left[0], had[1] - left[1])
            self._db.execute(
                "UPDATE past SET forgotten_rows = forgotten_rows + ?, forgotten = forgotten + ?",
                gone,
            )
            for statement in sql.FORGET_NAMES.split(";"):
                self._db.execute(statement, {"here": f"{boot_id()}:%", "rows": rows})
        return gone[0]

    def _in_rows(self) -> tuple[int, int]:
        """How many rows, and how many decisions in them."""
        rows, decisions = self._db.execute(
            "SELECT count(*), ifnull(sum(count), 0) FROM flow"
        ).fetchone()
        return int(rows), int(decisions)

    def totals(self) -> Totals:
        with self._errors():
            (taken,) = self._db.execute("SELECT ifnull(sum(taken), 0) FROM origin").fetchone()
            rows, decisions = self._in_rows()
            before, *forgotten = self._db.execute("SELECT * FROM past").fetchone()
        return Totals(before + taken, rows, decisions, *forgotten)

    def close(self) -> None:
        with self._errors():
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            damaged = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED
            kind = HistoryDamagedError if damaged else HistoryError
            raise kind(f"{self.path}: {reason}") from None


def move_aside(path: Path) -> Path:
    """A damaged file becomes the one that is kept for whoever can repair it; return its path."""
    kept = path.with_name(f"{path.name}.damaged")
    for suffix in ("-wal", "-shm"):  # they belong to it, and must not be applied to a new one
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(kept.with_name(kept.name + suffix))
    path.replace(kept)
    return kept


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))


def _row(one: Sum, program: int, boot: int) -> tuple[object, ...]:
    return (
        program, one.direction.value, one.protocol, one.address, one.port, one.verdict.value,
        boot, one.first_boot_ns, boot, one.last_boot_ns, one.decisions, one.reports,
    )  # fmt: skip


def _peer(data: bytes, direction: str) -> Address | None:
    address = IPv6Address(data) if data not in (b"", ANYWHERE) else None
    if address is None or (direction == Direction.IN and not int(address.ipv4_mapped or address)):
        return None
    return address.ipv4_mapped or address


def boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def clock_offset_ns() -> int:
    """Wall clock minus CLOCK_BOOTTIME, now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
