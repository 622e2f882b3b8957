# SPDX-License-Identifier: Apache-2.0
"""Facts of history in the form of events, and which of them no event told."""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from aegis.events.ecs import ECS_VERSION, TRANSPORTS, Record, deed, identity_words, network
from aegis.events.facts import Fact
from aegis.events.log_file import record_time
from aegis.events.text import exact_hex, json_text
from aegis.policy.model import Direction

Key = tuple[Any, ...]


def to_ecs_fact(fact: Fact) -> Record:
    """Return *fact* as an ECS object; ``@timestamp`` is when it was last seen."""
    ours: Record = {
        "verdict": fact.verdict.value,
        "hook": fact.hook,
        "count": fact.decisions,
        "reports": fact.reports,
        "identity": list(identity_words(fact.program.identity)),
        "history": True,
    }
    if fact.anywhere:
        ours["anywhere"] = True
    exact = exact_hex(fact.program.path)
    if exact is not None:
        ours["hex"] = {"executable": exact}
    what = "connection" if fact.hook == "connect" else fact.hook
    times = {"start": _stamp(fact.first), "end": _stamp(fact.last)}
    transport = TRANSPORTS.get(fact.protocol, str(fact.protocol))
    return {
        "@timestamp": times["end"],
        "ecs": {"version": ECS_VERSION},
        "host": {"name": os.uname().nodename},
        "event": {**deed(what, fact.verdict), **times},
        "process": {
            "name": json_text(fact.program.name),
            "executable": json_text(fact.program.path),
        },
        **_ends(fact),
        "network": network(transport, fact.address, fact.direction),
        "aegis": ours,
    }


def _ends(fact: Fact) -> Record:
    """``source`` and ``destination``; our own address is not known."""
    if fact.anywhere:
        return {}
    peer = {} if fact.address is None else {"ip": str(fact.address)}
    if fact.direction is Direction.OUT:
        return {"destination": {**peer, "port": fact.port}} if peer else {}
    return {**({"source": peer} if peer else {}), "destination": {"port": fact.port}}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Told:
    """What the records that passed by tell of: a flow, and since when."""

    def __init__(self) -> None:
        self.since: float | None = None  # of the first one
        self._flows: set[Key] = set()
        self._asked = False

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield *records*, and remember them until ``missing`` was asked for."""
        for record in records:
            if self._asked:
                yield record
                continue
            if self.since is None:
                self.since = record_time(record)
            self._flows.add(_key(record))
            yield record

    def missing(self, facts: Iterable[Fact]) -> Iterator[Record]:
        """Yield the *facts* off the map that no record told of."""
        self._asked = True
        for fact in facts:
            record = to_ecs_fact(fact)
            if fact.reports and _key(record) not in self._flows:
                yield record


def _key(record: Record) -> Key:
    places = (
        ("process", "executable"), ("source", "ip"), ("destination", "ip"), ("destination", "port"),
        ("network", "transport"), ("network", "direction"), ("aegis", "verdict"),
    )  # fmt: skip
    found = [_get(record, *place) for place in places]
    found[1 if found[5] == "egress" else 2] = None  # our own address: history does not know it
    return tuple(found)


def _get(record: Record, table: str, key: str) -> Any:
    value = record.get(table)
    return value.get(key) if isinstance(value, dict) else None
