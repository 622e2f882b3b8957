# SPDX-License-Identifier: Apache-2.0
"""What ``aegis events`` adds from history, and ``aegis events --summary``."""

import json
import time
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aegis.actions.log import EventLog
from aegis.events.context import Context
from aegis.events.ecs import to_ecs, to_json_line
from aegis.events.event import IdentityFlag
from aegis.events.facts import ANYWHERE, Program, Sum
from aegis.events.history import History, clock_offset_ns
from aegis.policy.address import mapped
from aegis.policy.model import Direction, Verdict
from tests.events.factory import make_event
from tests.events.test_events_command import output, start
from tests.pace import HUNG_S

TRUSTED = IdentityFlag.HOST_FS | IdentityFlag.TRUSTED
PROGRAMS = {
    1: Program("/usr/bin/curl", TRUSTED),
    2: Program("/usr/bin/nc", IdentityFlag.HOST_FS),
    3: Program("/srv/\udcff\n\x1b[2J\x9b\u202e", TRUSTED),
}


def made(program: int = 1, **changes: Any) -> Sum:
    """Refused just now; the factory's event, unless it is changed."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    whole = Sum(
        0, program, Direction.OUT, 6, Verdict.BLOCKED, mapped(ip_address("192.0.2.7")), 443,
        decisions=5, reports=5, first_boot_ns=now, last_boot_ns=now,
    )  # fmt: skip
    return whole._replace(**changes)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Options for a log with curl's event, and a history of more."""
    log, history = EventLog(tmp_path / "events.jsonl"), tmp_path / "history.db"
    event = to_ecs(make_event(boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME)), Context())
    log.add(to_json_line(event))
    log.close()
    sums = [
        made(),
        made(port=444),
        made(2, verdict=Verdict.ALLOWED, reports=0),
        made(2, direction=Direction.IN, address=bytes(16), port=80, verdict=Verdict.WOULD_BLOCK),
        made(2, protocol=132, address=b"", port=1),
        made(3),
    ]
    with closing(History(history)) as store:
        store.take("x:1", sums, lambda: PROGRAMS, untaken=1, offset_ns=clock_offset_ns())
    return "--file", str(log.path), "--history", str(history)


def told(*options: str) -> list[tuple[str, str, Any]]:
    """Program, verdict and port of each record."""
    records = [json.loads(line) for line in output("--json", *options).splitlines()]
    return [
        (
            record["process"]["name"],
            record["aegis"]["verdict"],
            record.get("destination", {}).get("port"),
        )
        for record in records
    ]


def test_history_tells_what_the_log_does_not(files: tuple[str, ...]) -> None:
    """Off the map and in no record: told once; what the log tells, or was on the map, is not."""
    found = told(*files)
    assert found[0] == ("curl", "blocked", 443)
    assert sorted(map(str, found[1:])) == sorted(
        map(
            str,
            [
                ("curl", "blocked", 444),
                ("nc", "would-block", 80),
                ("nc", "blocked", None),
                ("\ufffd\n\x1b[2J\x9b\u202e", "blocked", 443),
            ],
        )
    )


@pytest.mark.parametrize(
    ("args", "count"),
    [
        ([], 6),
        (["--exe", "curl"], 2),
        (["--exe", "/usr/bin/nc"], 3),
        (["--verdict", "allowed"], 1),
        (["--since", "1h"], 6),
        (["--since", "0"], 0),
    ],
)
def test_summary_is_all_of_history_through_the_filters(
    args: list[str], count: int, files: tuple[str, ...]
) -> None:
    """Also what was quiet: one line a fact, for people and for programs."""
    assert len(output("--summary", *files, *args).splitlines()) == count
    assert len(told("--summary", *files, *args)) == count


def test_summary_says_who_is_not_to_be_trusted_and_what_it_did(files: tuple[str, ...]) -> None:
    lines = output("--summary", *files, "--exe", "nc").splitlines()
    assert sorted(line.partition("nc ")[2] for line in lines) == [
        "(untrusted) -> 192.0.2.7:443/tcp",
        "(untrusted) listens on 80/tcp",
        "(untrusted) makes a socket of sctp",
    ]


@pytest.mark.parametrize("args", [[], ["--json"], ["--summary"], ["--summary", "--json"]])
def test_no_program_name_steers_a_terminal(args: list[str], files: tuple[str, ...]) -> None:
    assert output(*files, *args).replace("\n", "").isprintable()


def test_no_history_is_one_clear_error_if_it_was_asked_for(tmp_path: Path) -> None:
    process = start("--summary", "--history", str(tmp_path / "missing.db"))
    assert "unable to open database file" in process.communicate(timeout=HUNG_S)[1]
    assert process.returncode != 0


def test_following_reads_history_too_once(files: tuple[str, ...]) -> None:
    """First the log, then what no record of it tells, then what is new."""
    process = start("-f", "--since", "1h", "--json", *files)
    assert process.stdout is not None
    first = [json.loads(process.stdout.readline()) for _ in range(5)]
    log = EventLog(Path(files[1]))
    log.add(to_json_line(to_ecs(make_event(boot_ns=time.clock_gettime_ns(7)), Context())))
    log.close()
    new = json.loads(process.stdout.readline())
    process.kill()
    process.communicate()
    assert ["history" in record["aegis"] for record in [*first, new]] == [
        *(False, True, True, True, True),
        False,
    ]


def test_flows_that_had_no_room_of_their_own_are_told_as_many_others(tmp_path: Path) -> None:
    """No address and no port that nobody knows: neither in text nor in a record."""
    rest = made(2, address=ANYWHERE, port=0, decisions=7)
    with closing(History(tmp_path / "history.db")) as store:
        store.take("x:1", [rest], lambda: PROGRAMS, untaken=1, offset_ns=clock_offset_ns())
        [fact] = store.facts()
    assert (fact.address, fact.anywhere, fact.hook) == (None, True, "connect")
    files = ("--file", str(tmp_path / "none"), "--history", str(tmp_path / "history.db"))
    assert (
        output("--summary", *files)
        .rstrip()
        .endswith("7  /usr/bin/nc (untrusted) -> many others/tcp")
    )
    [record] = map(json.loads, output("--summary", "--json", *files).splitlines())
    assert record["aegis"]["anywhere"] is True and "destination" not in record
