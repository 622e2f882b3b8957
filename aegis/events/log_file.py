# SPDX-License-Identifier: Apache-2.0
"""The event log read back: current and rotated files, and as it grows."""

import gzip
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

from aegis.events.ecs import Record

LOG_PATH = Path("/var/log/aegis/events.jsonl")
_BLOCK = 1024 * 1024


@dataclass
class Skipped:
    """Lines that are no record: torn by a crash or a full disk, or not ours."""

    lines: int = 0


@dataclass
class Tail:
    """The log at *path* as it grows, through rotation, removal and truncation."""

    path: Path
    skipped: Skipped = field(default_factory=Skipped)
    file: IO[bytes] | None = None  # that is read from at present
    _rest: bytes = b""

    def read_new(self) -> Iterator[Record]:
        """Yield the whole records that appeared since the last call (first: all)."""
        while True:
            if self.file is None and not self._open():
                return
            yield from self._read_on()
            if not self._is_replaced():
                return
            yield from self._read_on()  # what was written just before the move
            self.skipped.lines += bool(self._rest)
            self.close()

    def skip_to_last(self, count: int | None) -> None:
        """Make the first ``read_new`` start *count* lines before the end; None: at the start."""
        if not self._open() or self.file is None or count is None:
            return
        position = self.file.seek(0, os.SEEK_END)
        text = b""
        while position and text.count(b"\n") <= count:
            step = min(_BLOCK, position)
            position -= step
            self.file.seek(position)
            text = self.file.read(step) + text
        keep = text.splitlines(keepends=True)[-count:] if count else []
        self.file.seek(position + len(text) - sum(map(len, keep)))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _open(self) -> bool:
        with suppress(FileNotFoundError):
            self.file = self.path.open("rb")
            self._rest = b""
        return self.file is not None

    def _read_on(self) -> Iterator[Record]:
        assert self.file is not None  # noqa: S101
        if os.fstat(self.file.fileno()).st_size < self.file.tell():
            self.file.seek(0)  # truncated in place
            self._rest = b""
        while block := self.file.read(_BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from _records(lines, self.skipped)

    def _is_replaced(self) -> bool:
        """Whether another file stands at *path* now.

        Nothing there: the open one may still grow, until the writer notices.
        """
        assert self.file is not None  # noqa: S101
        with suppress(FileNotFoundError):
            return not os.path.samestat(self.path.stat(), os.fstat(self.file.fileno()))
        return False


def read_log(path: Path, since: float | None, skipped: Skipped) -> Iterator[Record]:
    """Yield the records of *path*, oldest first, from wall clock time *since* on.

    Rotated files (``path.1``, ``path.2.gz``, …) are read if *since* needs them.
    :raises OSError: if *path* cannot be read
    """
    with path.open("rb") as current:
        # Listed once the current file is open: a rotation in between hides nothing.
        for file in () if since is None else _rotated_since(path, since, current):
            yield from _not_before(since, _read_file(file, skipped))
        yield from _not_before(since, _records(current, skipped))


def record_time(record: Record) -> float:
    """Return the wall clock time of *record*; 0 if it has none."""
    try:
        return datetime.fromisoformat(record["@timestamp"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _rotated_since(path: Path, since: float, current: IO[bytes] | None) -> list[Path]:
    """Return rotated files, oldest first, that were written to after *since*; not *current*."""
    found: list[Path] = []
    for number in range(1, 1000):
        candidates = [Path(f"{path}.{number}"), Path(f"{path}.{number}.gz")]
        existing = next((file for file in candidates if file.exists()), None)
        # Last written before: nothing newer in it, nor in any older one.
        if existing is None or existing.stat().st_mtime < since:
            break
        # What was open as the current one may have been rotated since.
        if current is None or not os.path.samestat(existing.stat(), os.fstat(current.fileno())):
            found.insert(0, existing)
    return found


def _read_file(path: Path, skipped: Skipped) -> Iterator[Record]:
    with path.open("rb") as file:
        plain = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        yield from _records(plain, skipped)


def _records(lines: Iterable[bytes], skipped: Skipped) -> Iterator[Record]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        else:
            skipped.lines += 1


def follow(  # noqa: PLR0913 (the last two by name only, for tests and history)
    path: Path,
    skipped: Skipped,
    *,
    since: float | None = None,
    last: int | None = None,
    interval: float = 0.25,
    between: Callable[[], Iterable[Record]] = tuple,
) -> Iterator[Record]:
    """Yield records for ever, looking for new ones every *interval* seconds.

    First those from *since* on, rotated files included, or the *last* few; then those
    of *between*, once.
    """
    tail = Tail(path, skipped)
    tail.skip_to_last(last)
    # Listed once the current file is open: a rotation in between hides nothing.
    for file in () if since is None else _rotated_since(path, since, tail.file):
        yield from _not_before(since, _read_file(file, skipped))
    yield from _not_before(since, tail.read_new())
    yield from between()
    while True:
        yield from _not_before(since, tail.read_new())
        time.sleep(interval)


def _not_before(since: float | None, records: Iterable[Record]) -> Iterator[Record]:
    return (record for record in records if since is None or record_time(record) >= since)
