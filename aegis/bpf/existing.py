# SPDX-License-Identifier: Apache-2.0
"""Sockets that processes held before the hooks were there, and the verdict on each."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aegis._bpf import lib
from aegis.bpf.generation import DIRECTIONS, index_key
from aegis.bpf.judge import answers
from aegis.bpf.layout import layout, text_of
from aegis.bpf.maps import KEY_OF_ONE, check
from aegis.bpf.object import BpfObject
from aegis.bpf.ring import REASONS, SCOPE_NAMES, VERDICTS, address_of, argv_of
from aegis.events.event import Event, Hook, IdentityFlag
from aegis.policy.model import Actions, Direction, Mode, Verdict

_CHUNK = 65536
_CLOSED, _LISTEN = 7, 10  # include/net/tcp_states.h; UDP has "established" and "closed" only


@dataclass(frozen=True)
class Held:
    """A socket as one process holds it. Addresses are 16 bytes, IPv4 mapped."""

    cookie: int
    carrier: int  # the cookie to destroy it by; 0: any
    start_boot_ns: int
    cgroup_id: int
    tgid: int
    ppid: int
    uid: int
    unit: bytes
    netns: int
    family: int
    protocol: int  # AEGIS_PROTOCOL_*; MPTCP is TCP
    device: int
    direction: Direction
    listens: bool
    local: tuple[bytes, int]
    remote: tuple[bytes, int]


@dataclass(frozen=True)
class Judged:
    """What the policy in force says of *held*; *proc* and *answer* as in ``records.h``."""

    held: Held
    proc: Mapping[str, Any]
    answer: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        return VERDICTS[self.answer["verdict"]]


def held_sockets(loaded: BpfObject) -> Iterator[Held]:
    """Yield every governed TCP and UDP socket that is connected or waits for somebody.

    Once for each process that holds it, of all network namespaces.

    :raises KernelError: when the kernel does not list them.
    """
    row = layout("aegis_held")
    data = _read_all(check(lib.aegis_iterator(loaded.program_fd("aegis_sockets")), "sockets"))
    for start in range(0, len(data), row.size):
        held = _to_held(row.unpack(data[start : start + row.size]))
        if held is not None:
            yield held


def _read_all(fd: int) -> bytes:
    chunks = []
    try:
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks)


def _to_held(row: dict[str, Any]) -> Held | None:
    udp = row["protocol"] == lib.AEGIS_PROTOCOL_UDP
    listens = bool(row["bound"] and not row["remote_port"]) if udp else row["state"] == _LISTEN
    if not listens and (row["state"] == _CLOSED or not row["remote_port"]):
        return None
    return Held(
        **{name: row[name] for name in _SAME},
        **{name: row[f"owner.{name}"] for name in _OWNER},
        direction=Direction.IN if listens or row["accepted"] else Direction.OUT,
        listens=listens,
        local=(row["local_addr"], row["local_port"]),
        remote=(row["remote_addr"], row["remote_port"]),
    )


_SAME = ("cookie", "carrier", "start_boot_ns", "netns", "family", "protocol", "device")
_OWNER = ("cgroup_id", "tgid", "ppid", "uid", "unit")


def stored_proc(loaded: BpfObject, held: Held) -> bytes:
    """``struct aegis_proc`` of the holder, as the hooks would find it."""
    procs = loaded.maps["procs"]
    proc = procs.get(index_key(held.tgid))
    if proc and layout("aegis_proc").unpack(proc)["start_boot_ns"] == held.start_boot_ns:
        return proc
    return procs.get(KEY_OF_ONE) or b""


def judge(loaded: BpfObject, holders: Sequence[Held]) -> Iterator[Judged]:
    """Ask the kernel's own decide() about each.

    :raises KernelError: when it does not answer.
    """
    unpack = layout("aegis_proc").unpack
    for start in range(0, len(holders), lib.AEGIS_JUDGE_MAX):
        some = holders[start : start + lib.AEGIS_JUDGE_MAX]
        procs = [stored_proc(loaded, held) for held in some]
        questions = [_question(held, proc) for held, proc in zip(some, procs, strict=True)]
        for held, proc, answer in zip(some, procs, answers(loaded, questions), strict=True):
            yield Judged(held, unpack(proc), answer)


def _question(held: Held, proc: bytes) -> bytes:
    """``struct aegis_judge``, which begins with the process."""
    pack = layout("aegis_judge").packer(
        "unit", "uid", "port", "direction", "protocol", "addr", "hook", "existing", "rest_addr"
    )
    outbound = held.direction is Direction.OUT
    # Where it would have been judged, had there been a hook.
    hook = lib.AEGIS_HOOK_CONNECT if outbound else lib.AEGIS_HOOK_ACCEPT
    question = pack(
        held.unit,
        held.uid,
        held.remote[1] if outbound else held.local[1],
        DIRECTIONS[held.direction],
        held.protocol,
        held.remote[0],
        lib.AEGIS_HOOK_LISTEN if held.listens else hook,
        1,
        held.local[0],
    )
    return proc + question[len(proc) :]


def to_event(
    judged: Judged, named: tuple[str, Actions], verdict: Verdict, mode: Mode, spared: str
) -> Event:
    """Turn a judged socket into an event; *named*: its rule and actions."""
    held, proc, answer = judged.held, judged.proc, judged.answer
    outbound = held.direction is Direction.OUT
    source, destination = (held.local, held.remote) if outbound else (held.remote, held.local)
    return Event(
        boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        start_boot_ns=held.start_boot_ns,
        exec_boot_ns=proc["exec_boot_ns"],
        generation=answer["generation"],
        pid=held.tgid,
        ppid=held.ppid,
        uid=held.uid,
        path=os.fsdecode(text_of(proc["path"])),
        argv=argv_of(proc["cmdline"], proc["cmdline_len"]),
        identity=IdentityFlag(proc["flags"]),
        device=proc["device"],
        inode=proc["inode"],
        cgroup_id=held.cgroup_id,
        unit=os.fsdecode(text_of(held.unit)) or None,
        hook=Hook.EXISTING,
        direction=held.direction,
        transport="tcp" if held.protocol == lib.AEGIS_PROTOCOL_TCP else "udp",
        scope=SCOPE_NAMES[answer["scope"]],
        verdict=verdict,
        reason=REASONS[answer["reason"]],
        mode=mode,
        destination=address_of(destination[0]),
        destination_port=destination[1],
        source=None if held.listens else address_of(source[0]),
        source_port=0 if held.listens else source[1],
        suppressed=0,
        silent=False,
        kill=None,  # it did nothing since
        rule=named[0],
        actions=named[1],
        spared=spared,
    )
