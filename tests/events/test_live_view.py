# SPDX-License-Identifier: Apache-2.0
"""What a person sees of an event."""

import io
import re
import unicodedata
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.cli.live import LiveView, cells, format_record
from aegis.events.context import Context
from aegis.events.ecs import to_ecs, to_ecs_notice
from aegis.policy.model import Actions, Direction, Mode, Scope, Verdict
from tests.events.factory import HOSTILE, make_event

CONTEXT = Context(names={ip_address("192.0.2.9"): "pool.example"})
CLOCK = re.compile(r"^\d\d:\d\d:\d\d ")


def shown(**changes: Any) -> list[str]:
    lines = format_record(to_ecs(make_event(**changes), CONTEXT))
    assert CLOCK.match(lines[0])
    return [CLOCK.sub("", lines[0]), *lines[1:]]


def test_an_event_is_two_lines() -> None:
    assert shown() == [
        "BLOCKED     curl -> 192.0.2.7:443/tcp  root  /etc/aegis.d/curl.toml:3",
        "         curl -s https://192.0.2.7/",
    ]
    assert shown(rule="unconfigured", verdict=Verdict.WOULD_BLOCK)[0] == (
        "WOULD BLOCK curl -> 192.0.2.7:443/tcp  root  unconfigured"
    )


def test_a_name_is_shown_for_the_address_it_was_resolved_to() -> None:
    assert "-> pool.example:443/tcp" in shown(destination=ip_address("192.0.2.9"))[0]


def test_user_and_rule_move_to_the_second_line_when_there_is_no_room() -> None:
    [first, _] = shown(destination=ip_address("2001:db8:1::9abc"))
    assert first == "BLOCKED     curl -> [2001:db8:1::9abc]:443/tcp  root  curl.toml:3"
    assert shown(destination=ip_address("2001:db8:1234:5678:9abc:def0:1234:5678")) == [
        "BLOCKED     curl -> [2001:db8:1234:5678:9abc:def0:1234:5678]:443/tcp",
        "         [root, curl.toml:3] curl -s https://192.0.2.7/",
    ]


def test_inbound_shows_who_came_and_where() -> None:
    [first, *_] = shown(
        direction=Direction.IN, scope=Scope.LISTEN, source=ip_address("192.0.2.50"), source_port=999
    )
    assert "curl <- 192.0.2.50 on 443/tcp" in first


def test_what_was_silenced_and_what_would_be_killed_is_said() -> None:
    kill = Actions(log=True, kill=True)
    lines = shown(suppressed=11, mode=Mode.OBSERVE, verdict=Verdict.WOULD_BLOCK, actions=kill)
    assert lines[1] == "         [12 times, would kill] curl -s https://192.0.2.7/"


def test_a_process_without_arguments_is_one_line() -> None:
    assert len(shown(argv=())) == 1


def test_notices_are_lines_too() -> None:
    fields = {"event": {"outcome": "failure"}, "aegis": {"output": "no\x1b[2J route\nmore\n"}}
    lines = format_record(to_ecs_notice("script-failed", "script x failed", fields, CONTEXT))
    assert CLOCK.sub("", lines[0]) == "* script x failed"
    assert lines[1] == r"         | no\x1b[2J route"
    assert len(format_record(to_ecs_notice("gap", "5 events lost", {}, CONTEXT))) == 1


hostile = st.sampled_from(HOSTILE) | st.text(max_size=120)


@given(hostile, hostile, st.integers(20, 200), st.booleans())
def test_no_name_leaves_its_line_or_steers_the_terminal(
    name: str, other: str, width: int, colour: bool
) -> None:
    event = make_event(path="/" + name, argv=(name, other * 9), rule=other, unit=name)
    records = [
        to_ecs(event, CONTEXT),
        to_ecs_notice(name, other, {"aegis": {"output": name}}, CONTEXT),
    ]
    for record in records:
        lines = format_record(record, width, colour=colour)
        assert 1 <= len(lines) <= 2
        for line in lines:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", line) if colour else line
            assert cells(plain) <= width
            assert not {unicodedata.category(c) for c in plain} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_a_record_of_any_shape_can_be_shown() -> None:
    """The log may hold lines of another version, or somebody's idea of a joke."""
    for record in ({}, {"aegis": 5}, {"process": [], "@timestamp": 7}, {"aegis": {"notice": 1}}):
        assert format_record(record)[0].startswith("--:--:--")


def test_wide_characters_count_twice() -> None:
    assert cells("日本") == 4 and cells("e\u0301") == 1 and cells("abc") == 3
    lines = format_record(to_ecs(make_event(argv=("日" * 100,)), CONTEXT), 40)
    assert lines[1] == "         [root, curl.toml:3] " + "日" * 5 + "…"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "coloured"), [(Terminal(), True), (io.StringIO(), False)])
def test_colours_are_for_terminals_only(stream: io.StringIO, coloured: bool) -> None:
    LiveView(stream).show(to_ecs(make_event(), CONTEXT))
    assert ("\x1b[1;31m BLOCKED" in stream.getvalue()) is coloured
    assert ("\x1b" in stream.getvalue()) is coloured


def test_an_ascii_terminal_gets_escapes() -> None:
    raw = io.BytesIO()
    view = LiveView(io.TextIOWrapper(raw, encoding="ascii"))
    view.show(to_ecs(make_event(argv=("日",)), CONTEXT))
    assert rb"\u65e5" in raw.getvalue()
