# SPDX-License-Identifier: Apache-2.0
"""The event ring: records drained in batches, and what they mean."""

import os
from ipaddress import IPv6Address
from typing import Any

from aegis._bpf import ffi, lib
from aegis.bpf.generation import DIRECTIONS, MODES, SCOPES
from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import check
from aegis.errors import KernelError
from aegis.events.event import Event, Hook, IdentityFlag, KillBy
from aegis.policy.model import Actions, Address, Reason, Verdict

# Records copied out of the ring at a time, a millisecond of work. Twice as many are a block of
# memory that is got from the system, and given back, for each batch (shim_memory.c).
BATCH = 64

VERDICTS = {
    lib.AEGIS_VERDICT_ALLOWED: Verdict.ALLOWED,
    lib.AEGIS_VERDICT_BLOCKED: Verdict.BLOCKED,
    lib.AEGIS_VERDICT_WOULD_BLOCK: Verdict.WOULD_BLOCK,
}
REASONS = {getattr(lib, f"AEGIS_REASON_{reason.name}"): reason for reason in Reason}
SCOPE_NAMES = {number: scope for scope, number in SCOPES.items()}
KILLS = {
    lib.AEGIS_KILL_NONE: None,
    lib.AEGIS_KILL_AGENT: KillBy.AGENT,
    lib.AEGIS_KILL_HOOK: KillBy.HOOK,
    lib.AEGIS_KILL_TRACING: KillBy.TRACING,
}
_MODES = {number: mode for mode, number in MODES.items()}
SELF_TEST: int = lib.AEGIS_HOOK_SELF_TEST  # of a record that is no decision
_HOOKS = {getattr(lib, f"AEGIS_HOOK_{hook.name}"): hook for hook in Hook}
DIRECTION_NAMES = {number: direction for direction, number in DIRECTIONS.items()}
TRANSPORTS = {
    lib.AEGIS_PROTOCOL_ICMP: "icmp",
    lib.AEGIS_PROTOCOL_TCP: "tcp",
    lib.AEGIS_PROTOCOL_UDP: "udp",
    lib.AEGIS_PROTOCOL_DCCP: "dccp",
    lib.AEGIS_PROTOCOL_ICMPV6: "ipv6-icmp",
    lib.AEGIS_PROTOCOL_SCTP: "sctp",
    lib.AEGIS_PROTOCOL_UDPLITE: "udplite",
}


class Ring:
    """Reader of a ring; one at a time. *record*: the struct it holds; *room*: its bytes."""

    def __init__(
        self, map_fd: int, record: str = "aegis_event", room: int = lib.AEGIS_RING_BYTES
    ) -> None:
        self._layout = layout(record)
        self._ring = lib.aegis_ring_open(map_fd, self._layout.size, room)
        if self._ring == ffi.NULL:
            raise KernelError("opening the event ring failed")
        self._buffer = ffi.new("char[]", BATCH * self._layout.size)

    def fileno(self) -> int:
        """A descriptor that polls readable when there are records."""
        return int(lib.aegis_ring_fd(self._ring))

    def drain(self) -> list[bytes]:
        """Return at most ``BATCH`` records, for ``fields_of``; fewer: it is empty.

        :raises KernelError: for a record of another size.
        """
        size = self._layout.size
        count = check(lib.aegis_ring_drain(self._ring, self._buffer, BATCH), "the event ring")
        data = ffi.buffer(self._buffer, count * size)[:]
        return [data[start : start + size] for start in range(0, count * size, size)]

    def close(self) -> None:
        lib.aegis_ring_close(self._ring)
        self._ring = ffi.NULL


def fields_of(record: bytes) -> dict[str, Any]:
    """The fields of a record by name."""
    return layout("aegis_event").unpack(record)


def address_of(data: bytes) -> Address:
    """16 bytes, network order, to an address; ::ffff:a.b.c.d to IPv4."""
    address = IPv6Address(data)
    return address.ipv4_mapped or address


def argv_of(data: bytes, length: int) -> tuple[str, ...]:
    """Arguments, each ended by a NUL; the last may be cut."""
    if not length:
        return ()
    return tuple(os.fsdecode(part) for part in data[:length].removesuffix(b"\0").split(b"\0"))


def to_event(record: dict[str, Any], rule: str, actions: Actions) -> Event:
    """Turn a record into an event; *rule* and *actions* are of its generation's policy."""
    hook = _HOOKS[record["hook"]]
    has_source = any(record["saddr"]) and hook not in (Hook.BIND, Hook.LISTEN)
    unit = os.fsdecode(text_of(record["owner.unit"]))
    return Event(
        boot_ns=record["boot_ns"],
        start_boot_ns=record["start_boot_ns"],
        exec_boot_ns=record["exec_boot_ns"],
        generation=record["generation"],
        pid=record["owner.tgid"],
        ppid=record["owner.ppid"],
        uid=record["owner.uid"],
        path=os.fsdecode(text_of(record["path"])),
        argv=argv_of(record["cmdline"], record["cmdline_len"]),
        identity=IdentityFlag(record["identity"]),
        device=record["device"],
        inode=record["inode"],
        cgroup_id=record["owner.cgroup_id"],
        unit=unit or None,
        hook=hook,
        direction=DIRECTION_NAMES[record["direction"]],
        transport=TRANSPORTS.get(record["protocol"], str(record["protocol"])),
        scope=SCOPE_NAMES[record["scope"]],
        verdict=VERDICTS[record["verdict"]],
        reason=REASONS[record["reason"]],
        mode=_MODES[record["mode"]],
        destination=None if hook is Hook.SOCKET else address_of(record["daddr"]),
        destination_port=record["dport"],
        source=address_of(record["saddr"]) if has_source else None,
        source_port=record["sport"],
        suppressed=record["suppressed"],
        silent=bool(record["silent"]),
        kill=KILLS[record["kill"]],
        rule=rule,
        actions=actions,
    )
