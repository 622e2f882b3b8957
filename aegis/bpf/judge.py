# SPDX-License-Identifier: Apache-2.0
"""Questions to the kernel's own ``decide()``, outside of the hooks.

The judge program shares every function with the hooks: what it answers is
what would be enforced. Used by the differential proof, which attaches nothing,
and for sockets that are older than the hooks.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aegis._bpf import lib
from aegis.bpf.generation import DIRECTIONS, SOCKETS, index_key
from aegis.bpf.layout import layout
from aegis.bpf.object import BpfObject
from aegis.bpf.ring import REASONS, SCOPE_NAMES, VERDICTS
from aegis.errors import KernelError
from aegis.policy.address import mapped
from aegis.policy.model import Direction, Flow, Identity, Protocol, Reason, Scope, Verdict
from aegis.policy.tables import Tables

_PROTOCOLS = {Protocol.TCP: lib.AEGIS_PROTOCOL_TCP, Protocol.UDP: lib.AEGIS_PROTOCOL_UDP}


@dataclass(frozen=True)
class Judgement:
    """The kernel's answer; *app* is 1 + the rule's place in the policy, 0 for none."""

    verdict: Verdict
    reason: Reason
    scope: Scope
    app: int
    actions: int  # enum aegis_action bits
    reports: bool


class Judge:
    """One policy at a time.

    :raises KernelError: when the object cannot be loaded.
    """

    def __init__(self) -> None:
        self._object = BpfObject()
        self._pack = layout("aegis_judge").packer(
            "proc.flags", "proc.cmdline_len", "proc.script_off", "proc.root_off", "proc.exe",
            "proc.path", "proc.cmdline", "unit", "uid", "port", "protocol", "hook", "direction",
            "addr",
        )  # fmt: skip

    def apply(self, tables: Tables) -> None:
        self._object.apply(tables)

    def ask(self, questions: Sequence[tuple[Identity, Flow]]) -> Iterator[Judgement]:
        """Yield an answer for each question, in order."""
        rest = iter(questions)
        while batch := list(islice(rest, lib.AEGIS_JUDGE_MAX)):
            yield from self._ask_batch(batch)

    def _ask_batch(self, batch: list[tuple[Identity, Flow]]) -> Iterator[Judgement]:
        for answer in answers(self._object, [self.pack(*question) for question in batch]):
            yield Judgement(
                verdict=VERDICTS[answer["verdict"]],
                reason=REASONS[answer["reason"]],
                scope=SCOPE_NAMES[answer["scope"]],
                app=answer["app"],
                actions=answer["actions"],
                reports=bool(answer["report"]),
            )

    def pack(self, identity: Identity, flow: Flow) -> bytes:
        """Return ``struct aegis_judge``: what the kernel would have stored of *identity*."""
        flags, cmdline, script = _stored_cmdline(identity)
        return self._pack(
            flags | _flags(identity),
            len(cmdline),
            script,
            _root_offset(identity),
            os.fsencode(identity.exe or ""),
            os.fsencode(identity.path or ""),
            cmdline,
            os.fsencode(identity.unit or ""),
            identity.user,
            flow.port if flow.socket is None else socket_bits(flow.socket),
            _PROTOCOLS[flow.protocol],
            _hook(flow),
            DIRECTIONS[flow.direction],
            mapped(flow.address),
        )

    def close(self) -> None:
        self._object.close()


def answers(loaded: BpfObject, questions: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Yield ``struct aegis_judge`` with the answer to each, of the policy in force.

    :raises KernelError: when the kernel did not judge.
    """
    if len(questions) > lib.AEGIS_JUDGE_MAX:
        raise ValueError(f"{len(questions)} questions at once")
    table = loaded.maps["judgements"]
    table.fill([(index_key(n), question) for n, question in enumerate(questions)])
    for number in range(len(questions)):
        if loaded.run("aegis_judge", number) != 1:
            raise KernelError("the kernel did not judge: a table is missing")
        yield layout("aegis_judge").unpack(table.get(index_key(number)) or b"")


def _hook(flow: Flow) -> int:
    """TCP always connects, Fast Open too; UDP may send without."""
    if flow.socket is not None:
        return int(lib.AEGIS_HOOK_SOCKET)
    if flow.direction is Direction.IN:
        return int(lib.AEGIS_HOOK_LISTEN if flow.listening else lib.AEGIS_HOOK_INGRESS)
    connects = flow.protocol is Protocol.TCP or flow.udp_connect
    return int(lib.AEGIS_HOOK_CONNECT if connects else lib.AEGIS_HOOK_SENDMSG)


def socket_bits(kind: str) -> int:
    """The words that allow a socket of *kind*."""
    bits = SOCKETS[kind]
    return int(bits | lib.AEGIS_SOCKET_RAW if kind == "icmp" else bits)


def _root_offset(identity: Identity) -> int:
    """Where the path inside its own root begins, in bytes of the whole path; 0: the same."""
    if identity.path is None or identity.inner_path is None:
        return 0
    if not identity.path.endswith(identity.inner_path):
        raise ValueError(f"{identity.inner_path} is no end of {identity.path}")
    return len(os.fsencode(identity.path)) - len(os.fsencode(identity.inner_path))


def _flags(identity: Identity) -> int:
    named = {
        lib.AEGIS_ID_HOST_FS: identity.host_fs,
        lib.AEGIS_ID_TRUSTED: identity.trusted,
        lib.AEGIS_ID_PATH_CUT: identity.path is None,
        lib.AEGIS_ID_NAME_CUT: identity.exe is None,
        lib.AEGIS_ID_ARGV0_FALSE: identity.argv0_false,
    }
    return sum(bit for bit, wanted in named.items() if wanted)


def _stored_cmdline(identity: Identity) -> tuple[int, bytes, int]:
    """Flags, bytes and script offset, as exec would have stored them."""
    if identity.argv is None:
        return lib.AEGIS_ID_CMDLINE_LOST, b"", 0
    arguments = [os.fsencode(word) + b"\0" for word in identity.argv]
    flags, script = 0, 0
    if identity.script_index is not None:
        flags |= lib.AEGIS_ID_SCRIPT
        script = sum(map(len, arguments[: identity.script_index]))
    whole = b"".join(arguments)
    if len(whole) >= lib.AEGIS_CMDLINE_SIZE:
        flags |= lib.AEGIS_ID_CMDLINE_CUT
    return flags, whole[: lib.AEGIS_CMDLINE_SIZE - 1], script
