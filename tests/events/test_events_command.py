# SPDX-License-Identifier: Apache-2.0
"""``aegis events``, run as a user would."""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aegis.actions.log import EventLog
from aegis.cli.events import add_parser, parse_age
from aegis.errors import AegisError
from aegis.events.context import Context
from aegis.events.ecs import to_ecs, to_ecs_notice, to_json_line
from aegis.policy.model import Verdict
from tests.events.factory import make_event
from tests.pace import HUNG_S

ROOT = Path(__file__).parents[2]
MAIN = """
import argparse, signal, sys
from aegis.cli.events import add_parser
# A shell starts its background jobs with SIGINT ignored, and so everything below them.
signal.signal(signal.SIGINT, signal.default_int_handler)
parser = argparse.ArgumentParser()
add_parser(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.run(args))
"""


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "events", *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(*args: str) -> str:
    process = start(*args)
    out, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, err) == (0, "")
    return out


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """A log with curl blocked, nc allowed and a notice."""
    log, context = EventLog(tmp_path / "events.jsonl"), Context()
    curl = make_event()
    nc = make_event(path="/opt/nc", argv=("nc",), verdict=Verdict.ALLOWED)
    records = [to_ecs(curl, context), to_ecs(nc, context)]
    records.append(to_ecs_notice("script-failed", "script x failed", {}, context))
    for record in records:
        log.add(to_json_line(record))
    log.flush()
    return log


def test_all_is_shown_for_people(log: EventLog) -> None:
    lines = output("--file", str(log.path)).splitlines()
    assert len(lines) == 5  # two a connection, one the notice
    assert "BLOCKED     curl ->" in lines[0] and "ALLOWED     nc ->" in lines[2]
    assert "script x failed" in lines[4]


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ([], ["curl", "nc", None]),
        (["--exe", "curl"], ["curl"]),
        (["--exe", "/opt/nc"], ["nc"]),
        (["--exe", "/usr/bin/nc"], []),
        (["--verdict", "blocked"], ["curl"]),
        (["--verdict", "blocked", "--verdict", "allowed"], ["curl", "nc"]),
        (["--exe", "nc", "--verdict", "blocked"], []),
    ],
)
def test_filters(log: EventLog, args: list[str], names: list[str | None]) -> None:
    lines = output("--json", "--file", str(log.path), *args).splitlines()
    assert [json.loads(line).get("process", {}).get("name") for line in lines] == names


def test_since_leaves_out_what_is_older(log: EventLog) -> None:
    context = Context()
    old = to_ecs(make_event(path="/bin/old"), context)
    old["@timestamp"] = "2001-01-01T00:00:00.000000Z"
    log.add(to_json_line(old))
    log.flush()
    # The factory's events happened 90 s after boot, whenever that was.
    lines = output("--json", "--since", "1000w", "--file", str(log.path)).splitlines()
    assert len(lines) == 3


def test_follow_shows_what_comes_until_interrupted(log: EventLog, tmp_path: Path) -> None:
    process = start("-f", "--json", "--file", str(log.path))
    assert process.stdout
    try:
        for _ in range(3):
            json.loads(process.stdout.readline())
        log.path.rename(tmp_path / "events.jsonl.1")
        log.add(to_json_line(to_ecs(make_event(path="/bin/new"), Context())))
        log.flush()
        assert json.loads(process.stdout.readline())["process"]["name"] == "new"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=HUNG_S) == ("", "")
        assert process.returncode == 0
    finally:
        process.kill()


def test_damaged_lines_are_counted_on_stderr(log: EventLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"torn\n\xff\x1b[2J\n')
    process = start("--json", "--file", str(log.path))
    out, err = process.communicate(timeout=HUNG_S)
    assert len(out.splitlines()) == 3
    assert err == "aegis events: 2 damaged lines left out\n"


def test_a_raw_control_byte_in_the_file_does_not_reach_stdout(log: EventLog) -> None:
    with log.path.open("ab") as file:
        file.write('{"message":"\x7f\x9b31m\u202e","aegis":{"notice":"x"}}\n'.encode())
    for args in ([], ["--json"]):
        out = output("--file", str(log.path), *args)
        assert out.replace("\n", "").isprintable()


def test_a_reader_that_leaves_is_no_error(log: EventLog) -> None:
    with log.path.open("a") as file:
        file.write((log.path.read_text()) * 2000)
    process = start("--file", str(log.path))
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(HUNG_S) == 141


def test_a_log_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["events", "--file", str(tmp_path / "missing")])
    with pytest.raises(AegisError, match=r"missing: No such file or directory$"):
        args.run(args)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1d12h", 129600), ("2w", 1209600)]
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1y", "-1h", "1h ", "1.5h", "\u0661h"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time such as"):
        parse_age(text)
