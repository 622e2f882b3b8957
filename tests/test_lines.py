# SPDX-License-Identifier: Apache-2.0
"""The short way to a line of the log is the long way's line, whatever the record holds."""

import copy
import os
import random
from ipaddress import ip_address

import pytest

from aegis.bpf.layout import layout
from aegis.bpf.ring import (
    DIRECTION_NAMES,
    KILLS,
    REASONS,
    SCOPE_NAMES,
    SELF_TEST,
    VERDICTS,
    fields_of,
    to_event,
)
from aegis.events.context import Context
from aegis.events.ecs import to_ecs, to_json_line
from aegis.lines import Lines
from aegis.naming import Naming
from aegis.policy.model import Actions, Address, Policy, Settings
from tests.events.factory import HOSTILE

LAYOUT = layout("aegis_event")
NAMED = ip_address("192.0.2.7")


def v4(last: int) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes([192, 0, 2, last])


ADDRESSES = [v4(7), v4(8), bytes(16), bytes(15) + b"\1", b"\x20\1" + bytes(13) + b"\7"]


def naming() -> Naming:
    made = Naming(4)
    made.add(3, Policy(settings=Settings(unconfigured_actions=Actions(log=True))))
    return made


def context() -> Context:
    names: dict[Address, str] = {NAMED: "bob.example"}
    return Context(names)


def record(choose: random.Random, **fields: int | bytes) -> bytes:
    text = choose.choice(HOSTILE)
    cmdline = b"\0".join(os.fsencode(t) for t in choose.choices(["a", "\x1b[m", "\udcff"], k=2))
    values: dict[str, int | bytes] = {
        "boot_ns": choose.randrange(10**15),
        "start_boot_ns": choose.choice([10**9, 5 * 10**12]),
        "suppressed": choose.choice([0, 0, 1, 2**40]),
        "generation": choose.choice([3, 3, 9]),
        "identity": choose.choice([0, 3, 2048]),
        "dport": choose.choice([0, 53, 443]),
        "sport": choose.choice([0, 40000, 65535]),
        "cmdline_len": len(cmdline),
        "hook": choose.choice([0, 1, 3, 5]),
        "direction": choose.choice(list(DIRECTION_NAMES)),
        "protocol": choose.choice([6, 17, 132, 250]),
        "scope": choose.choice(list(SCOPE_NAMES)),
        "verdict": choose.choice(list(VERDICTS)),
        "reason": choose.choice(list(REASONS)),
        "daddr": choose.choice(ADDRESSES),
        "saddr": choose.choice(ADDRESSES),
        "owner.uid": choose.choice([0, 1, 4000000000]),
        "owner.tgid": choose.choice([1, 4242]),
        "owner.unit": choose.choice([b"", b"cron.service"]),
        "path": os.fsencode(text.replace("\ud800", ""))[:100],
        "cmdline": cmdline,
    }
    return LAYOUT.pack(**values | fields)


def long_way(raw: bytes, named: Naming, ours: Context) -> str:
    fields = fields_of(raw)
    return to_json_line(to_ecs(to_event(fields, *named.name(fields)), ours))


@pytest.mark.parametrize("seed", range(8))
def test_both_ways_give_the_same_line(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "clock", lambda self: (10**15, 1_700_000_000_123_456_789))
    choose = random.Random(seed)  # noqa: S311
    named, ours = naming(), context()
    theirs = copy.copy(ours)
    lines, short = Lines(named, ours), 0
    lines.begin_batch()
    for _ in range(500):
        raw = record(choose)
        line = lines.line(raw)
        if line is not None:
            short += 1
            assert line == long_way(raw, named, theirs)
    assert short > 100 and ours.next_sequence() == short + 1


@pytest.mark.parametrize(
    ("fields", "actions"),
    [
        ({"silent": 1}, Actions(log=True)),
        ({"kill": next(number for number, by in KILLS.items() if by)}, Actions(log=True)),
        ({}, Actions(log=True, notify=True)),
        ({}, Actions(log=True, scripts=("isolate",))),
        ({}, Actions()),
        ({"hook": SELF_TEST}, Actions(log=True)),
    ],
)
def test_what_takes_more_than_a_line_goes_the_long_way(
    fields: dict[str, int | bytes], actions: Actions
) -> None:
    named = Naming(4)
    named.add(3, Policy(settings=Settings(unconfigured_actions=actions)))
    lines = Lines(named, context())
    lines.begin_batch()
    raw = record(random.Random(1), **{"generation": 3, "hook": 1, **fields})  # noqa: S311
    assert lines.line(raw) is None
    lines = Lines(naming(), context())
    lines.begin_batch()
    assert lines.line(record(random.Random(1), generation=3, hook=1)) is not None  # noqa: S311


def test_new_names_and_policies_are_seen() -> None:
    named, ours = naming(), context()
    lines = Lines(named, ours)
    lines.begin_batch()
    raw = record(random.Random(2), generation=9, hook=1, daddr=v4(7))  # noqa: S311
    first = lines.line(raw)
    assert first is not None and "bob.example" in first and "generation 9" in first
    ours.names = {}
    named.add(9, Policy(settings=Settings(unconfigured_actions=Actions(log=True))))
    lines.begin_batch()
    second = lines.line(raw)
    assert second is not None and "bob" not in second and "generation 9" not in second
