# SPDX-License-Identifier: Apache-2.0
"""What an event looks like to whoever reads the log."""

import json
import os
import re
import time
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.events.context import Context
from aegis.events.ecs import to_ecs, to_ecs_notice, to_json_line
from aegis.events.event import Hook, IdentityFlag
from aegis.policy.model import Actions, Direction, Mode, Scope, Verdict
from tests.events.factory import HOSTILE, make_event


def read_back(record: dict[str, Any]) -> dict[str, Any]:
    """Write and parse *record*, checking what every line promises."""
    line = to_json_line(record)
    assert line.isascii() and line.isprintable()
    parsed: dict[str, Any] = json.loads(line)
    json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # raises on a lone surrogate
    return parsed


def wall(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def test_a_blocked_connection_has_every_documented_field() -> None:
    context = Context(names={ip_address("192.0.2.7"): "bob.com"})
    event = make_event(source=ip_address("192.0.2.1"), source_port=40000, suppressed=4)
    record = read_back(to_ecs(event, context))
    assert record["process"] == {
        "pid": 4242,
        "name": "curl",
        "executable": "/usr/bin/curl",
        "command_line": "curl -s https://192.0.2.7/",
        "args": ["curl", "-s", "https://192.0.2.7/"],
        "start": record["process"]["start"],
        "parent": {"pid": 4000},
    }
    assert record["user"] == {"id": "0", "name": "root"}
    assert record["destination"] == {"ip": "192.0.2.7", "port": 443, "domain": "bob.com"}
    assert record["source"] == {"ip": "192.0.2.1", "port": 40000}
    assert record["network"] == {
        "transport": "tcp",
        "iana_number": "6",
        "type": "ipv4",
        "direction": "egress",
    }
    assert record["rule"] == {"name": "/etc/aegis.d/curl.toml:3"}
    assert record["aegis"] == {
        "verdict": "blocked",
        "mode": "enforce",
        "reason": "rule-denies",
        "hook": "connect",
        "actions": ["log", "block"],
        "scope": "remote",
        "generation": 3,
        "count": 5,
        "identity": ["host-fs", "trusted"],
        "cgroup": 77,
        "unit": "cron.service",
        "would_kill": False,
    }
    assert record["host"]["name"] == os.uname().nodename
    assert record["event"]["type"] == ["connection", "denied"]


@pytest.mark.parametrize(
    ("verdict", "action", "outcome", "kind"),
    [
        (Verdict.ALLOWED, "connection-allowed", "success", "event"),
        (Verdict.WOULD_BLOCK, "connection-would-block", "success", "alert"),
        (Verdict.BLOCKED, "connection-blocked", "failure", "alert"),
    ],
)
def test_outcome_tells_whether_the_connection_went_through(
    verdict: Verdict, action: str, outcome: str, kind: str
) -> None:
    record = read_back(to_ecs(make_event(verdict=verdict), Context()))
    assert record["aegis"]["verdict"] == verdict.value
    assert record["event"]["action"] == action
    assert record["event"]["outcome"] == outcome
    assert record["event"]["kind"] == kind


def test_what_is_unknown_is_absent_rather_than_invented() -> None:
    event = make_event(unit=None, uid=4_000_000_000, destination_port=0)
    record = read_back(to_ecs(event, Context()))
    assert "source" not in record and "unit" not in record["aegis"]
    assert record["user"] == {"id": "4000000000"}
    assert record["destination"] == {"ip": "192.0.2.7"}


def test_an_inbound_ipv6_datagram_of_another_transport() -> None:
    event = make_event(
        direction=Direction.IN,
        scope=Scope.LISTEN,
        transport="132",
        destination=ip_address("2001:db8::1"),
    )
    record = read_back(to_ecs(event, Context()))
    assert record["network"] == {
        "transport": "132",
        "iana_number": "132",
        "type": "ipv6",
        "direction": "ingress",
    }


def test_would_kill_is_said_in_observe_mode_only() -> None:
    kill = Actions(log=True, kill=True, scripts=("isolate",))
    observed = make_event(mode=Mode.OBSERVE, verdict=Verdict.WOULD_BLOCK, actions=kill)
    enforced = make_event(actions=kill)
    assert read_back(to_ecs(observed, Context()))["aegis"]["would_kill"] is True
    assert read_back(to_ecs(enforced, Context()))["aegis"]["would_kill"] is False
    assert to_ecs(enforced, Context())["aegis"]["actions"] == ["log", "script:isolate", "kill"]


def test_what_was_there_before_is_marked() -> None:
    """``aegis.existing``, why it was left alone, and that a new one would kill."""
    kill = Actions(log=True, kill=True)
    found = make_event(
        hook=Hook.EXISTING, spared="login", actions=kill, verdict=Verdict.WOULD_BLOCK
    )
    ours = to_ecs(found, Context())["aegis"]
    assert (ours["existing"], ours["spared"], ours["would_kill"]) == (True, "login", True)
    assert not {"existing", "spared"} & set(to_ecs(make_event(), Context())["aegis"])


def test_ids_differ_within_and_between_runs() -> None:
    first, second = Context(), Context()
    ids = [to_ecs(make_event(), context)["event"] for context in (first, first, second)]
    assert len({event["id"] for event in ids}) == 3
    assert [event["sequence"] for event in ids] == [1, 2, 1]


def test_times_are_wall_clock_in_utc() -> None:
    begun, now_ns = time.time(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    event = make_event(boot_ns=now_ns, start_boot_ns=now_ns - 3_600_000_000_000)
    record = to_ecs(event, Context())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["@timestamp"])
    assert begun - 0.1 <= wall(record["@timestamp"]) <= time.time() + 0.1
    assert wall(record["@timestamp"]) - wall(record["process"]["start"]) == pytest.approx(3600)


def test_one_process_keeps_one_start_time() -> None:
    """Reading two clocks jitters; what a SIEM joins on must not."""
    context = Context()
    assert len({to_ecs(make_event(), context)["process"]["start"] for _ in range(2000)}) == 1


def test_who_is_interrupted_between_two_clocks_moves_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a machine with much else to do; a clock that was set is followed."""
    context, real = Context(), time.time_ns
    _, before = context.clock()
    late = iter([20_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: real() + next(late, 0))
    assert context.clock()[1] == before
    monkeypatch.setattr(time, "time_ns", lambda: real() + 2_000_000_000)
    assert context.clock()[1] - before == pytest.approx(2e9, abs=1e7)


def test_all_identity_flags_have_names() -> None:
    record = to_ecs(make_event(identity=~IdentityFlag(0)), Context())
    assert len(record["aegis"]["identity"]) == len(IdentityFlag)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_valid_line(name: str) -> None:
    event = make_event(path=f"/tmp/{name}", argv=(name, name), unit=name, rule=name)  # noqa: S108
    record = read_back(to_ecs(event, Context(names={ip_address("192.0.2.7"): name})))
    exact = record["aegis"].get("hex", {})
    shown = record["process"]["executable"]
    if "\ufffd" in shown:
        assert bytes.fromhex(exact["executable"]).startswith(b"/tmp/")
        assert len(exact["args"]) == 2 and exact["unit"] == exact["args"][0]
    else:
        assert shown == event.path and not exact


@given(st.lists(st.binary(max_size=60).map(os.fsdecode), max_size=5))
def test_the_exact_arguments_can_always_be_had(argv: list[str]) -> None:
    record = read_back(to_ecs(make_event(argv=tuple(argv)), Context()))
    exact = record["aegis"].get("hex", {}).get("args")
    shown = record["process"]["args"]
    raw = [bytes.fromhex(a) for a in exact] if exact else [a.encode() for a in shown]
    assert [os.fsdecode(a) for a in raw] == argv


def test_two_mebibytes_of_arguments_are_one_line() -> None:
    record = to_ecs(make_event(argv=("x", "\n\udcff" * 2**20)), Context())
    assert "\n" not in to_json_line(record)
    assert read_back(record)["process"]["args"][1] == "\n\ufffd" * 2**20


def test_a_notice_names_its_kind_and_merges_its_fields() -> None:
    context, begun = Context(), time.time()
    fields = {
        "process": {"pid": 7, "name": "\udcff\n"},
        "event": {"outcome": "failure"},
        "aegis": {"lost": 12},
    }
    record = read_back(to_ecs_notice("events-lost", "12 events \udcff lost", fields, context))
    assert record["aegis"] == {"notice": "events-lost", "lost": 12}
    assert record["event"]["kind"] == "event"
    assert record["event"]["outcome"] == "failure"
    assert record["event"]["action"] == "events-lost"
    assert record["process"] == {"pid": 7, "name": "\ufffd\n"}
    assert record["message"] == "12 events \ufffd lost"
    assert begun - 0.1 <= wall(record["@timestamp"]) <= time.time() + 0.1
    assert record["event"]["id"].endswith("-1")
    assert to_ecs_notice("counters", "", {}, context, metric=True)["event"]["kind"] == "metric"


def test_a_surrogate_that_slipped_through_does_not_cost_the_line() -> None:
    assert read_back({"key\udcff": ["\ud800", {"a": "\U0001f600"}]}) == {
        "key\ufffd": ["\ufffd", {"a": "\U0001f600"}]
    }
