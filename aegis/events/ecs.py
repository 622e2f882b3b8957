# SPDX-License-Identifier: Apache-2.0
"""Events and notices as Elastic Common Schema objects; ours live under ``aegis``.

An *event* is a connection off the map. A *notice* is anything else worth a
line: what a kill or a script came to, a gap, a reload. Both are nested dicts
of JSON values, and one line each when written.

Text is what a program may choose, so it is made JSON-safe here: an undecodable
byte reads U+FFFD, and the exact bytes of that field stand as hex under
``aegis.hex`` (``aegis.hex.executable``, ``aegis.hex.args``, …).
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aegis.events.context import Context
from aegis.events.event import Event, Hook, IdentityFlag
from aegis.events.text import exact_bytes, exact_hex, json_text
from aegis.policy.model import Address, Direction, Mode, Verdict

Record = dict[str, Any]
"""One JSON object: an event or a notice."""

ECS_VERSION = "8.11.0"

_OUTCOME = {
    Verdict.ALLOWED: ("event", "allowed", "success"),
    Verdict.WOULD_BLOCK: ("alert", "allowed", "success"),
    Verdict.BLOCKED: ("alert", "denied", "failure"),
}
_IANA = {
    **{"icmp": "1", "tcp": "6", "udp": "17", "dccp": "33"},
    **{"ipv6-icmp": "58", "sctp": "132", "udplite": "136"},
}
TRANSPORTS = {int(number): name for name, number in _IANA.items()}
_DEEDS = {Hook.SOCKET: "socket", Hook.BIND: "listen", Hook.LISTEN: "listen"}
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def to_ecs(event: Event, context: Context) -> Record:
    """Return *event* as a new ECS object with the next number of *context*."""
    lost: Record = {}
    record = {
        **_base(context, context.wall_time(event.boot_ns)),
        "process": _process(event, context, lost),
        "user": _user(event.uid, context),
        "network": network(event.transport, event.destination, event.direction),
        "rule": {"name": json_text(event.rule)},
        "aegis": _aegis(event, lost),
    }
    record["event"] |= deed(_DEEDS.get(event.hook, "connection"), event.verdict)
    if event.destination is not None:
        record["destination"] = _destination(event.destination, event.destination_port, context)
    if event.source is not None:
        record["source"] = _endpoint(event.source, event.source_port)
    return record


def deed(what: str, verdict: Verdict) -> Record:
    """Return the ECS ``event`` of *what* (``connection``) that got *verdict*."""
    kind, kind_type, outcome = _OUTCOME[verdict]
    return {
        "kind": kind,
        "category": ["network"],
        "type": ["connection", kind_type],
        "action": f"{what}-{verdict.value}",
        "outcome": outcome,
    }


def to_ecs_notice(
    kind: str, message: str, fields: Mapping[str, Any], context: Context, *, metric: bool = False
) -> Record:
    """Return a record that is no connection; *kind* becomes ``aegis.notice``.

    *fields* is merged in, nested. *metric*: numbers rather than an occurrence.
    """
    record = _base(context, context.wall_time())
    record["event"] |= {"kind": "metric" if metric else "event", "action": kind}
    record["message"] = json_text(message)
    record["aegis"] = {"notice": kind}
    return _merged(record, fields)


def to_json_line(record: Mapping[str, Any]) -> str:
    """Return *record* as one line of valid JSON in printable ASCII, without the newline."""
    line = _ENCODER.encode(record)
    # Escaped surrogates are fine in pairs. Alone they are what half the world's
    # parsers refuse; none should be left, but a line must never be lost to one.
    return _ENCODER.encode(_safe(record)) if "\\ud" in line else line


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return json_text(value)
    if isinstance(value, Mapping):
        return {_safe(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value


def _base(context: Context, timestamp: str) -> Record:
    sequence = context.next_sequence()
    return {
        "@timestamp": timestamp,
        "ecs": {"version": ECS_VERSION},
        "host": {"name": context.host},
        "event": {"id": f"{context.run_id}-{sequence}", "sequence": sequence},
    }


def _text(lost: Record, name: str, text: str) -> str:
    exact = exact_hex(text)
    if exact is not None:
        lost[name] = exact
    return json_text(text)


def _process(event: Event, context: Context, lost: Record) -> Record:
    args = [json_text(arg) for arg in event.argv]
    if any(exact_hex(arg) for arg in event.argv):
        # All of them, so that positions agree.
        lost["args"] = [exact_bytes(arg).hex() for arg in event.argv]
    return {
        "pid": event.pid,
        "name": json_text(event.name),
        "executable": _text(lost, "executable", event.path),
        "command_line": " ".join(args),
        "args": args,
        "start": context.wall_time(event.start_boot_ns),
        "parent": {"pid": event.ppid},
    }


def _user(uid: int, context: Context) -> Record:
    name = context.user_name(uid)
    return {"id": str(uid)} if name is None else {"id": str(uid), "name": json_text(name)}


def _endpoint(address: Address, port: int) -> Record:
    return {"ip": str(address), "port": port} if port else {"ip": str(address)}


def endpoint_line(address: Address, port: int, name: str | None) -> str:
    """Return the JSON of an endpoint, as in a whole line."""
    endpoint = _endpoint(address, port)
    if name is not None:
        endpoint["domain"] = json_text(name)
    elif port:
        return f'{{"ip":"{address}","port":{port}}}'
    return to_json_line(endpoint)


def _destination(address: Address, port: int, context: Context) -> Record:
    destination = _endpoint(address, port)
    name = context.names.get(address)
    if name is not None:
        destination["domain"] = json_text(name)
    return destination


def network(transport: str, address: Address | None, direction: Direction) -> Record:
    """Return the ECS ``network`` of a connection with *address*, if with any."""
    version = {} if address is None else {"type": f"ipv{address.version}"}
    return {
        "transport": transport,
        "iana_number": _IANA.get(transport, transport),
        **version,
        # ECS words for a host's own view of a connection.
        "direction": "egress" if direction is Direction.OUT else "ingress",
    }


def _aegis(event: Event, lost: Record) -> Record:
    ours: Record = {
        "verdict": event.verdict.value,
        "mode": event.mode.value,
        "reason": event.reason.value,
        "hook": event.hook,
        "actions": [json_text(word) for word in event.actions.names()],
        "scope": event.scope.value,
        "generation": event.generation,
        "count": 1 + event.suppressed,
        "identity": list(identity_words(event.identity)),
        "cgroup": event.cgroup_id,
        "would_kill": event.actions.kill and (event.existing or event.mode is Mode.OBSERVE),
    }
    if event.existing:
        ours["existing"] = True
    if event.spared:
        ours["spared"] = event.spared
    if event.unit is not None:
        ours["unit"] = _text(lost, "unit", event.unit)
    if lost:
        ours["hex"] = lost
    return ours


@lru_cache(maxsize=1024)
def identity_words(flags: IdentityFlag) -> tuple[str, ...]:
    """Return the names of *flags* as an event shows them: ``("host-fs", "trusted")``."""
    return tuple(str(flag.name).lower().replace("_", "-") for flag in flags)


def _merged(base: Record, fields: Mapping[str, Any]) -> Record:
    for key, value in fields.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            base[key] = _merged(dict(below), value)
        else:
            base[key] = _safe(value)
    return base
