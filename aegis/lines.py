# SPDX-License-Identifier: Apache-2.0
"""Events that are only logged, as JSON lines without a detour: what makes 100,000 a second.

A flood's events differ in little: when, to and from where, how many. The rest of
the line is the same bytes for the same bytes of the record, so it is made once by
``to_ecs``, as for any other event, and kept. A test compares the two for each field.
"""

import copy
import secrets
import struct
from collections.abc import Mapping

from aegis.bpf.layout import offset_of
from aegis.bpf.ring import SELF_TEST, address_of, fields_of, to_event
from aegis.events.context import Context, stamp_of
from aegis.events.ecs import endpoint_line, to_ecs, to_json_line
from aegis.events.event import Event, Hook
from aegis.naming import Naming
from aegis.policy.model import Address

KEPT = 4096  # beginnings of lines, and twice as many ends: 300 bytes each
_STALE_NS = 30 * 1_000_000_000  # the name of a user may change

_V4 = bytes(10) + b"\xff\xff"
_NOWHERE = bytes(16)
_WITHOUT_SOURCE = (Hook.BIND, Hook.LISTEN)  # who asks for a port has one only then


def _offset(name: str) -> int:
    return offset_of("aegis_event", name)


_SUPPRESSED, _INODE = _offset("suppressed"), _offset("inode")
_DPORT, _CMDLINE_LEN = _offset("dport"), _offset("cmdline_len")
_DADDR, _SADDR, _OWNER = _offset("daddr"), _offset("saddr"), _offset("owner")
_NUMBERS = struct.Struct(
    f"=Q{_SUPPRESSED - 8}xQ{_DPORT - _SUPPRESSED - 8}xHH"
)  # boot_ns, suppressed, dport, sport


class _Parts:
    """A line but for time, number, count and what follows ``aegis``."""

    __slots__ = ("after_count", "after_id", "after_sequence", "after_time", "before")

    def __init__(self, event: Event, context: Context) -> None:
        mark = secrets.token_hex(16)  # in no text of a program's
        record = to_ecs(event, copy.copy(context))  # no number is used up
        record.pop("destination", None)
        record.pop("source", None)
        record["@timestamp"] = f"{mark}"
        record["event"]["id"] = f"{context.run_id}-{mark}"
        record["event"]["sequence"] = mark
        record["aegis"]["count"] = mark
        line = to_json_line(record).replace(f'"sequence":"{mark}"', f'"sequence":{mark}')
        line = line.replace(f'"count":"{mark}"', f'"count":{mark}')
        self.before, self.after_time, self.after_id, self.after_sequence, rest = line.split(mark)
        self.after_count = rest.removesuffix("}")


class Lines:
    """Makes the line of a record, or says that it takes more than a line."""

    def __init__(self, naming: Naming, context: Context) -> None:
        self._naming = naming
        self._context = context
        self._parts: dict[bytes, _Parts | None] = {}
        self._ends: dict[bytes, str] = {}
        self._names: Mapping[Address, str] | None = None
        self._version = -1
        self._offset_ns = 0
        self._until_ns = 0

    def begin_batch(self) -> None:
        """Forget what may no longer be so."""
        context = self._context
        now_ns, offset_ns = context.clock()
        if (
            context.names is not self._names
            or self._naming.version != self._version
            or offset_ns != self._offset_ns
            or now_ns > self._until_ns
            or len(self._parts) > KEPT
            or len(self._ends) > 2 * KEPT
        ):
            self._parts.clear()
            self._ends.clear()
            self._names, self._version = context.names, self._naming.version
            self._offset_ns, self._until_ns = offset_ns, now_ns + _STALE_NS

    def line(self, raw: bytes) -> str | None:
        """Return the line of *raw*, numbered; None: it is to be handled as an event."""
        daddr = raw[_DADDR : _SADDR + 16]
        key = raw[8:_SUPPRESSED] + raw[_INODE:_DPORT] + raw[_CMDLINE_LEN:_DADDR] + raw[_OWNER:]
        key += b"4" if daddr.startswith(_V4) else b"6"
        try:
            parts = self._parts[key]
        except KeyError:
            parts = self._parts[key] = self._learn(raw)
        if parts is None:
            return None
        boot_ns, suppressed, dport, sport = _NUMBERS.unpack_from(raw)
        end_key = daddr + raw[_DPORT : _DPORT + 4]
        end = self._ends.get(end_key)
        if end is None:
            end = self._ends[end_key] = self._end(daddr, dport, sport)
        context = self._context
        number = context.next_sequence()
        return (
            f"{parts.before}{stamp_of(self._offset_ns + boot_ns)}{parts.after_time}{number}"
            f"{parts.after_id}{number}{parts.after_sequence}{1 + suppressed}{parts.after_count}"
            f"{end}}}"
        )

    def _learn(self, raw: bytes) -> _Parts | None:
        record = fields_of(raw)
        if record["hook"] == SELF_TEST:
            return None
        rule, actions = self._naming.name(record)
        event = to_event(record, rule, actions)
        others = (actions.notify or bool(actions.scripts)) and not event.sends_nothing
        if others or event.silent or event.kill is not None or not actions.log:
            return None
        if event.destination is None or event.hook in _WITHOUT_SOURCE:
            return None
        return _Parts(event, self._context)

    def _end(self, addresses: bytes, dport: int, sport: int) -> str:
        destination = address_of(addresses[:16])
        name = self._context.names.get(destination)
        text = f',"destination":{endpoint_line(destination, dport, name)}'
        if addresses[16:] != _NOWHERE:
            text += f',"source":{endpoint_line(address_of(addresses[16:]), sport, None)}'
        return text
