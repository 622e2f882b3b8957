# SPDX-License-Identifier: Apache-2.0
"""The metrics file: what Prometheus' own library reads in it, and how it is written."""

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aegis.bpf.balance import SLACK, holds
from aegis.bpf.kernel import Measures
from aegis.metrics import MetricsFile, exposition, write_metrics
from tests.actions.told import Told

COUNTERS = {
    "decided": 100_000, "emitted": 10_000, "suppressed": 20_000, "lost": 30_000, "quiet": 40_000,
    "allowed": 70_000, "blocked": 20_000, "would_block": 10_000, "identity_lost": 1,
    "identity_missing": 2, "detent_failed": 3, "broken": 4, "history_lost": 50,
    "history_folded": 60,
}  # fmt: skip
HISTORY = {"taken": 90_000, "pending": 9_950}
STATUS = {
    "uptime_s": 12.5, "generation": 7, "mode": "observe", "rules": 3, "policy_age_s": 1.5,
    "last_reload_ok": False,
    "kills": {"killed": 5, "not-the-same-process": 6},
    "scripts": {"started": 9, "script-failed": 2},
    "notifications": {"sent": 11}, "defects": 15,
    "log": {"path": "/l", "written": 12, "lost": 13, "error": "No space left on device"},
    "history": {"path": "/h", "error": None},
    "output": {"lost": 14, "error": None},
}  # fmt: skip


def measures(counters: dict[str, int] = COUNTERS, history: dict[str, int] = HISTORY) -> Measures:
    return Measures(counters, history, {"procs": (17, 131072)}, (4096, 8388608))


def read(text: str) -> dict[str, float]:
    """Value by ``name{label=value}``, without prefix, as Prometheus' library reads them."""
    return {
        sample.name.removeprefix("aegis_")
        + "".join(f"{{{label}={value}}}" for label, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decided_total", 100_000),
        ("decisions_total{verdict=would_block}", 10_000),
        ("outcomes_total{outcome=suppressed}", 20_000),
        ("outcomes_total{outcome=lost}", 30_000),
        ("identity_missing_total", 2),
        ("history_taken_total", 90_000),
        ("history_pending", 9_950),
        ("history_lost_total", 50),
        ("history_folded_total", 60),
        ("balanced{law=outcomes}", 1),
        ("balanced{law=verdicts}", 1),
        ("balanced{law=history}", 1),
        ("map_entries{map=procs}", 17),
        ("map_max_entries{map=procs}", 131072),
        ("ring_bytes", 4096),
        ("ring_max_bytes", 8388608),
        ("log_lines_total{outcome=lost}", 13),
        ("failing{file=log}", 1),
        ("failing{file=output}", 0),
        ("output_lost_total", 14),
        ("failing{file=history}", 0),
        ("scripts_total{outcome=script-failed}", 2),
        ("notifications_total{outcome=sent}", 11),
        ("kills_total{outcome=killed}", 5),
        ("kills_total{outcome=not-the-same-process}", 6),
        ("reactions_failed_total", 15),
        ("policy_info{mode=observe}", 1),
        ("policy_generation", 7),
        ("policy_age_seconds", 1.5),
        ("last_reload_ok", 0),
    ],
)
def test_each_number_is_what_it_says(name: str, value: float) -> None:
    assert read(exposition(measures(), STATUS))[name] == value


@pytest.mark.parametrize(
    ("law", "name"), [("outcomes", "quiet"), ("verdicts", "blocked"), ("history", "history_lost")]
)
def test_a_law_that_is_broken_shows(law: str, name: str) -> None:
    """One decision more than what may be under way is missing: that law alone reads 0."""
    counters = COUNTERS | {name: COUNTERS[name] + COUNTERS["decided"] // 1000 + SLACK + 1}
    found = read(exposition(measures(counters), STATUS))
    broken = [name for name in ("outcomes", "verdicts", "history")
              if not found[f"balanced{{law={name}}}"]]  # fmt: skip
    assert broken == [law]


def test_every_family_says_what_it_is() -> None:
    families = list(text_string_to_metric_families(exposition(measures(), STATUS)))
    assert len(families) > 20
    assert [family.name for family in families if not family.documentation] == []
    assert {family.type for family in families} == {"counter", "gauge"}


def test_a_label_cannot_break_the_format() -> None:
    status: dict[str, Any] = {**STATUS, "scripts": {'a"\n\\x': 1}}
    assert read(exposition(measures(), status))['scripts_total{outcome=a"\n\\x}'] == 1


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    """Old or new, whole, while it is written again and again."""
    path, seen, stop = tmp_path / "aegis.prom", set(), threading.Event()
    texts = [str(number) * 200_000 for number in range(5)]
    write_metrics(path, texts[0])

    def look() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(50):
        write_metrics(path, texts[number % 5])
    stop.set()
    thread.join()
    assert seen <= set(texts)
    assert [file.name for file in tmp_path.iterdir()] == ["aegis.prom"]


def test_the_file_is_for_all_to_read_whatever_the_umask(tmp_path: Path) -> None:
    """The exporter is another user; the service's umask is 0077."""
    path, before = tmp_path / "aegis.prom", os.umask(0o077)
    try:
        write_metrics(path, "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_it_is_never_written_through_a_link(tmp_path: Path) -> None:
    """Who owns the directory cannot have root write elsewhere."""
    target = tmp_path / "target"
    target.write_text("mine")
    for name in ("aegis.prom", ".aegis.prom.new"):
        (tmp_path / name).symlink_to(target)
    write_metrics(tmp_path / "aegis.prom", "x")
    assert target.read_text() == "mine" and (tmp_path / "aegis.prom").read_text() == "x"


def test_a_failure_is_told_once_and_leaves_what_was_there(tmp_path: Path) -> None:
    told = Told()
    metrics = MetricsFile(measures, lambda: STATUS, told)
    folder = tmp_path / "gone"
    for _ in range(3):
        metrics.write(folder / "aegis.prom")
    assert told.kinds() == ["metrics-failed"] and str(folder) in told.notices[0][1]
    folder.mkdir()
    metrics.write(folder / "aegis.prom")
    assert read((folder / "aegis.prom").read_text())["decided_total"] == 100_000
    folder.rename(tmp_path / "away")
    metrics.write(folder / "aegis.prom")
    assert told.kinds() == ["metrics-failed", "metrics-restored", "metrics-failed"]


def test_the_laws_hold_while_decisions_are_made_between_two_reads() -> None:
    """At 600,000 a second the sums are read later than the counter."""
    assert not holds(600_330, 640_132)
    assert holds(600_330, 640_132, moved=39_000)
    assert not holds(600_330, 640_132, moved=20_000)


def test_what_is_missing_is_not_forgiven_for_there_being_much() -> None:
    """After a year of decisions as on the first day."""
    assert holds(10**9, 10**9 - SLACK) and holds(10**9, 10**9 + SLACK)
    assert not holds(10**9, 10**9 - SLACK - 1)
    assert not holds(10**9, 10**9 + SLACK + 1)
