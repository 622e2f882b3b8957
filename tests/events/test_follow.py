# SPDX-License-Identifier: Apache-2.0
"""Following the log from some point of the past into the future."""

from pathlib import Path
from time import time

from aegis.events.log_file import Skipped, follow
from tests.events.test_log_file import append, record


def test_following_since_a_time_joins_rotated_current_and_new(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(tmp_path / "log.1", record(1, 900) + record(2, 300))
    append(path, record(3, 100))
    records = follow(path, Skipped(), since=time() - 600, interval=0.01)
    assert [next(records)["n"] for _ in range(2)] == [2, 3]
    append(path, record(4))
    path.rename(tmp_path / "log.0")
    append(path, record(5))
    assert [next(records)["n"] for _ in range(2)] == [4, 5]


def test_following_the_last_few_waits_for_a_log_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    records = follow(path, Skipped(), last=2, interval=0.01)
    append(path, record(1) + record(2) + record(3))
    assert [next(records)["n"] for _ in range(2)] == [2, 3]
    again = follow(tmp_path / "later", Skipped(), last=2, interval=0.01)
    (tmp_path / "elsewhere").write_text(record(7))
    (tmp_path / "elsewhere").rename(tmp_path / "later")
    assert next(again)["n"] == 7
