# SPDX-License-Identifier: Apache-2.0
"""The history file: rows, times under a clock that is set, bounds, damage."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import HistoryError
from aegis.events import history as history_module
from aegis.events.event import IdentityFlag
from aegis.events.facts import UNKNOWN_PROGRAM, Fact, Program, Sum
from aegis.events.history import History
from aegis.policy.address import mapped
from aegis.policy.model import Direction, Verdict

TRUSTED = IdentityFlag.HOST_FS | IdentityFlag.TRUSTED
CURL = Program("/usr/bin/curl", TRUSTED)
HOSTILE = Program("/srv/\udcff\n\x1b[2J", IdentityFlag.HOST_FS)
PROGRAMS = {1: CURL, 2: HOSTILE}
ORIGIN = f"{history_module.boot_id()}:7"
DAY_NS = 86_400_000_000_000
NOW_NS = 2_000_000_000_000_000_000  # of the wall clock, at boot


def made(epoch: int = 0, program: int = 1, port: int = 443, **changes: Any) -> Sum:
    whole = Sum(
        epoch, program, Direction.OUT, 6, Verdict.ALLOWED, mapped(ip_address("192.0.2.7")), port,
        decisions=1, reports=0, first_boot_ns=1_000_000_000, last_boot_ns=2_000_000_000,
    )  # fmt: skip
    return whole._replace(**changes)


class Store(History):
    """A history that is told of sums with as few words as a test needs."""

    def add(self, *sums: Sum, untaken: int = 1, offset_ns: int = NOW_NS) -> None:
        self.take(ORIGIN, sums, lambda: PROGRAMS, untaken=untaken, offset_ns=offset_ns)

    def by_port(self) -> dict[int, Fact]:
        return {fact.port: fact for fact in self.facts()}

    def ports(self) -> list[int]:
        return [fact.port for fact in self.facts()]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "aegis" / "history.db")) as opened:
        yield opened


def test_the_file_is_roots_alone(store: Store) -> None:
    """Where a host's programs go is nobody else's business."""
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_the_same_flow_is_one_row(store: Store) -> None:
    """First of the first, last of the last, counts added up."""
    store.add(made(decisions=3, reports=1))
    later = made(1, decisions=4, reports=2, first_boot_ns=5 * 10**9, last_boot_ns=9 * 10**9)
    store.add(later, untaken=2)
    [fact] = store.facts()
    assert (fact.program, str(fact.address), fact.port) == (CURL, "192.0.2.7", 443)
    assert (fact.decisions, fact.reports) == (7, 3)
    assert (fact.first, fact.last) == (NOW_NS / 1e9 + 1, NOW_NS / 1e9 + 9)


@pytest.mark.parametrize(
    "change",
    [
        {"program": 2},
        {"direction": Direction.IN},
        {"protocol": 17},
        {"address": mapped(ip_address("2001:db8::7"))},
        {"address": b""},
        {"port": 444},
        {"verdict": Verdict.BLOCKED},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_flow_is_another_row(change: dict[str, Any], store: Store) -> None:
    """Each part of the key keeps facts apart."""
    store.add(made(), made(**change))
    assert len(list(store.facts())) == 2


def test_what_is_in_already_is_not_added_again(store: Store) -> None:
    """An agent killed between the file and the kernel: the next one brings the same epoch."""
    store.add(made(4, decisions=5), untaken=5)
    store.add(made(4, decisions=5), made(5, decisions=2), untaken=6)
    assert store.by_port()[443].decisions == 7
    assert store.untaken(ORIGIN) == 6 and store.totals().taken == 7


def test_maps_made_anew_begin_again_at_epoch_zero(store: Store) -> None:
    """Epochs and numbers of programs mean something only together with the maps they are of."""
    store.add(made(4), untaken=5)
    store.take(
        f"{history_module.boot_id()}:8", [made()], lambda: {1: HOSTILE}, untaken=1, offset_ns=0
    )
    assert {fact.program for fact in store.facts()} == {CURL, HOSTILE}


def test_numbers_keep_their_meaning_and_unknown_ones_are_said_to_be(store: Store) -> None:
    """The kernel's table may have forgotten a program that its processes still are."""
    store.add(made())
    store.take(ORIGIN, [made(1), made(1, 9)], dict, untaken=2, offset_ns=NOW_NS)
    assert {fact.program: fact.decisions for fact in store.facts()} == {CURL: 2, UNKNOWN_PROGRAM: 1}


def test_hostile_paths_come_back_whole(store: Store) -> None:
    store.add(made(program=2))
    assert [fact.program for fact in store.facts()] == [HOSTILE]


def test_all_or_nothing(store: Store) -> None:
    """A failure in the middle leaves no half epoch behind, and the next try adds all of it."""

    def fail() -> dict[int, Program]:
        raise OSError(5, "Input/output error")

    with pytest.raises(HistoryError, match="Input/output error"):
        store.take(ORIGIN, [made()], fail, untaken=1, offset_ns=0)
    assert list(store.facts()) == [] and store.untaken(ORIGIN) == 0
    store.add(made())
    assert store.ports() == [443]


def test_times_of_a_clock_that_was_wrong_at_boot_are_put_right(store: Store) -> None:
    """In 1970 until NTP answers: what was noted before is shown at its true time."""
    store.add(made(), offset_ns=0)
    assert store.by_port()[443].last == 2
    store.add(untaken=2, offset_ns=NOW_NS)
    assert store.by_port()[443].last == NOW_NS / 1e9 + 2


def test_an_earlier_boots_times_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the clock is now says nothing of another boot; a flow seen in both spans them."""
    with monkeypatch.context() as patch:
        patch.setattr(history_module, "boot_id", lambda: "earlier")
        store.take("earlier:1", [made()], lambda: PROGRAMS, untaken=1, offset_ns=NOW_NS - DAY_NS)
    store.add(made(), offset_ns=NOW_NS)
    [fact] = store.facts()
    assert fact.last - fact.first == pytest.approx(86401)


def test_since_is_by_the_last_time(store: Store) -> None:
    store.add(made(port=1), made(port=2, last_boot_ns=50 * 10**9))
    assert [fact.port for fact in store.facts(NOW_NS / 1e9 + 10)] == [2]


def test_what_is_old_is_forgotten_and_counted(store: Store) -> None:
    store.add(made(port=1, decisions=3), made(port=2, last_boot_ns=50 * 10**9))
    assert store.forget(before=NOW_NS / 1e9 + 10, rows=100) == 1
    assert store.ports() == [2]
    totals = store.totals()
    assert (totals.forgotten_rows, totals.forgotten) == (1, 3)
    assert totals.taken == totals.decisions + totals.forgotten


def test_the_program_with_the_most_rows_pays_for_the_bound(store: Store) -> None:
    """Its oldest rows go, and nothing of a program that has few."""
    flood = [made(program=2, port=port, last_boot_ns=port) for port in range(1, 200)]
    store.add(made(port=443, last_boot_ns=0), *flood)
    store.forget(before=None, rows=50)
    assert store.ports() == [443, *range(151, 200)]


def test_names_no_row_needs_are_forgotten_too(store: Store) -> None:
    """A program that runs under a million paths leaves nothing for ever."""
    numbers = {number: Program(f"/srv/{number}", TRUSTED) for number in range(1, 301)}
    sums = [made(program=number, last_boot_ns=number) for number in numbers]
    store.take(ORIGIN, sums, lambda: numbers, untaken=1, offset_ns=NOW_NS)
    store.forget(before=None, rows=100)
    with closing(sqlite3.connect(store.path)) as db:
        for table in ("program", "number"):
            (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            assert count <= 101, table


@pytest.mark.parametrize("damage", ["text", "directory", "newer"])
def test_a_file_that_does_not_serve_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "history.db"
    if damage == "text":
        path.write_text("not a database\n" * 100)
    elif damage == "directory":
        path.mkdir()
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match=str(path)):
        History(path)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with pytest.raises(HistoryError, match="unable to open"):
        History(path, read_only=True)
    assert not path.exists()


def test_many_at_once_are_the_same_as_one_by_one(store: Store) -> None:
    """Also the two halves of one flow that come in one batch, and a rest that fills no batch."""
    ports = [*range(1, 1001), *range(500, 600)]
    store.add(*(made(port=port, decisions=2) for port in ports))
    found = store.by_port()
    assert sorted(found) == list(range(1, 1001))
    assert {port for port, fact in found.items() if fact.decisions == 4} == set(range(500, 600))
    assert store.totals().taken == store.totals().decisions == 2 * len(ports)


def test_who_is_slow_to_read_holds_nothing_up(store: Store) -> None:
    """As a pager that waits: the file's log can be emptied, and does not grow meanwhile."""
    store.add(*(made(port=port) for port in range(1, 500)))
    with closing(Store(store.path, read_only=True)) as reader:
        facts = reader.facts()
        next(facts)
        store.add(made(epoch=1, port=600), untaken=2)
        with closing(sqlite3.connect(store.path)) as writer:
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        assert len(list(facts)) == 498
