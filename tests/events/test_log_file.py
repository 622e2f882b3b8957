# SPDX-License-Identifier: Apache-2.0
"""Reading the event log back while somebody rotates it."""

import gzip
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aegis.events import log_file
from aegis.events.log_file import Skipped, Tail, read_log


def record(n: int, age: float = 0.0) -> str:
    stamp = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
    return json.dumps({"@timestamp": stamp, "n": n}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def numbers(tail: Tail) -> list[int]:
    return [found["n"] for found in tail.read_new()]


def test_lines_that_are_no_record_are_counted_not_fatal(tmp_path: Path) -> None:
    path, skipped = tmp_path / "log", Skipped()
    path.write_bytes(record(1).encode() + b'{"torn\n\xff\xfe\n[1]\n\n' + record(2).encode())
    assert [found["n"] for found in read_log(path, None, skipped)] == [1, 2]
    assert skipped.lines == 3


def test_since_reads_as_many_rotated_files_as_needed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(record(5, 10) + record(6))
    path.with_name("log.1").write_text(record(3, 5000) + record(4, 3000))
    with gzip.open(tmp_path / "log.2.gz", "wt") as file:
        file.write(record(1, 10000) + record(2, 8000))
    now = time.time()
    os.utime(tmp_path / "log.1", (now, now - 3000))
    os.utime(tmp_path / "log.2.gz", (now, now - 8000))

    def read(age: float | None) -> list[int]:
        since = None if age is None else now - age
        return [found["n"] for found in read_log(path, since, Skipped())]

    assert read(None) == [5, 6]
    assert read(60) == [5, 6]
    assert read(4000) == [4, 5, 6]
    assert read(9000) == [2, 3, 4, 5, 6]
    (tmp_path / "log.2.gz").write_bytes(b"never opened when not needed")
    os.utime(tmp_path / "log.2.gz", (now, now - 8000))
    assert read(4000) == [4, 5, 6]


def test_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_log(tmp_path / "log", None, Skipped()))


def test_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert numbers(tail) == []  # not there yet
    line = record(1)
    append(path, line[:5])
    assert numbers(tail) == []
    append(path, line[5:] + record(2))
    assert numbers(tail) == [1, 2]
    assert numbers(tail) == []


def test_tail_loses_nothing_over_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, record(1))
    tail = Tail(path)
    assert numbers(tail) == [1]
    append(path, record(2))
    path.rename(tmp_path / "log.1")
    append(tmp_path / "log.1", record(3))  # the writer had it open
    assert numbers(tail) == [2, 3]
    append(tmp_path / "log.1", record(4))
    append(path, record(5))
    assert numbers(tail) == [4, 5]
    path.unlink()
    append(path, record(6))
    assert numbers(tail) == [6]


def test_tail_starts_over_when_truncated(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, record(1) + record(2))
    tail = Tail(path)
    assert numbers(tail) == [1, 2]
    path.write_text(record(3))
    assert numbers(tail) == [3]


@pytest.mark.parametrize(("count", "left"), [(0, []), (1, [9]), (3, [7, 8, 9]), (50, [*range(10)])])
def test_tail_can_start_near_the_end(tmp_path: Path, count: int, left: list[int]) -> None:
    path = tmp_path / "log"
    append(path, "".join(record(n) for n in range(10)))
    tail = Tail(path)
    tail.skip_to_last(count)
    assert numbers(tail) == left
    append(path, record(10))
    assert numbers(tail) == [10]


def test_a_rotation_while_it_is_read_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one read twice: what was the current file is the newest rotated one then."""
    path = tmp_path / "log"
    path.write_text(record(2))
    path.with_name("log.1").write_text(record(1))
    listed = log_file._rotated_since

    def rotate(*asked: Any) -> list[Path]:
        path.with_name("log.1").rename(tmp_path / "log.2")
        path.rename(tmp_path / "log.1")
        append(path, record(3))
        return listed(*asked)

    monkeypatch.setattr(log_file, "_rotated_since", rotate)
    read = [found["n"] for found in read_log(path, time.time() - 60, Skipped())]
    assert read == [1, 2]


def test_who_follows_reads_nothing_twice_over_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_text(record(1))
    skip = Tail.skip_to_last

    def rotate(tail: Tail, count: int | None) -> None:
        skip(tail, count)
        path.rename(tmp_path / "log.1")
        append(path, record(2))

    monkeypatch.setattr(Tail, "skip_to_last", rotate)
    new = log_file.follow(path, Skipped(), since=time.time() - 60)
    assert [next(new)["n"], next(new)["n"]] == [1, 2]
