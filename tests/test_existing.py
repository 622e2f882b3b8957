# SPDX-License-Identifier: Apache-2.0
"""What is never cut, whatever a policy says; for the real thing see tests/kernel."""

import asyncio
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from aegis import existing
from aegis._bpf import lib
from aegis.actions.defects import Defects
from aegis.bpf.diag import destroy
from aegis.bpf.existing import Held, Judged
from aegis.errors import KernelError
from aegis.existing import why_spared
from aegis.policy.model import Direction, Settings
from tests.actions.told import Told

LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\1"
SO_COOKIE = 57
LOGIN = {4000}  # whom the agent descends from
INBOUND: dict[str, Any] = {"direction": Direction.IN}


def held(**changes: Any) -> Held:
    fields: dict[str, Any] = {
        "cookie": 1, "carrier": 1, "tgid": 4242, "ppid": 1, "uid": 0, "start_boot_ns": 1,
        "cgroup_id": 1, "unit": b"", "netns": 1, "family": 2, "protocol": lib.AEGIS_PROTOCOL_TCP,
        "device": 0,
        "direction": Direction.OUT, "listens": False, "local": (LOOPBACK, 1),
        "remote": (LOOPBACK, 2),
    }  # fmt: skip
    return Held(**{**fields, **changes})


def judged(
    exe: bytes = b"nc", *, blocked: bool = True, trusted: bool = True, **changes: Any
) -> Judged:
    verdict = lib.AEGIS_VERDICT_BLOCKED if blocked else lib.AEGIS_VERDICT_ALLOWED
    proc = {"exe": exe.ljust(64, b"\0"), "flags": lib.AEGIS_ID_TRUSTED if trusted else 0}
    return Judged(held(**changes), proc, {"verdict": verdict})


@pytest.mark.parametrize(
    ("found", "why"),
    [
        pytest.param(judged(), "", id="refused"),
        pytest.param(judged(tgid=1), "init", id="pid-1"),
        pytest.param(judged(tgid=os.getpid()), "agent", id="the-agent"),
        pytest.param(judged(tgid=4000), "login", id="whom-it-descends-from"),
        pytest.param(judged(b"sshd", **INBOUND), "login", id="sshd"),
        pytest.param(judged(b"sshd-session", **INBOUND), "login", id="sshd-session"),
        pytest.param(judged(b"sshd"), "", id="where-sshd-goes"),
        pytest.param(judged(b"sshd", trusted=False, **INBOUND), "", id="a-file-called-sshd"),
        pytest.param(judged(blocked=False), "shared", id="allowed"),
    ],
)
def test_what_is_spared(found: Judged, why: str) -> None:
    """PID 1, the agent and a login keep what they have; a name alone gains nothing."""
    assert why_spared([found], LOGIN) == why


def test_one_spared_holder_is_enough() -> None:
    """A socket that PID 1 holds too, or an allowed program, is not cut for its other holder."""
    assert why_spared([judged(), judged(tgid=1)], LOGIN) == "init"
    assert why_spared([judged(), judged(tgid=77, blocked=False)], LOGIN) == "shared"
    assert why_spared([judged(), judged(tgid=77)], LOGIN) == ""


def test_a_socket_nobody_can_judge_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the agent: it would find it again at each start."""

    def judge(_: object, holders: list[Held]) -> list[Judged]:
        checked.append(holders[0].cookie)
        if holders[0].cookie == 2:
            raise KeyError("a defect")
        return []

    checked: list[int] = []
    sockets = [held(cookie=cookie) for cookie in (1, 2, 3)]
    monkeypatch.setattr(existing, "held_sockets", lambda _: sockets)
    monkeypatch.setattr(existing, "judge", judge)
    told, nothing = Told(), cast("Any", None)
    defects = Defects(told)
    sweep = existing.Existing(
        nothing, Settings(), nothing, nothing, told, on_defect=defects.happened
    )
    asyncio.run(sweep.sweep(lambda: None))
    assert checked == [1, 2, 3] and sweep.tally.done
    assert (defects.count, sweep.tally.failed) == (1, 1)
    assert told.kinds() == ["reaction-failed", "existing-checked"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_cannot_be_closed_is_an_error() -> None:
    """A namespace nobody is in any more."""
    with pytest.raises(KernelError, match="no process is left in its network namespace"):
        destroy(held(netns=1), [os.getpid()])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_socket_of_our_own_network_is_closed_and_no_other() -> None:
    """By its cookie: what now has its addresses but another cookie is not it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        ends = [
            (bytes(10) + b"\xff\xff" + socket.inet_aton(address), port)
            for address, port in (client.getsockname(), client.getpeername())
        ]
        cookie = int.from_bytes(client.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)
        ours = Path("/proc/self/ns/net").stat().st_ino
        found = held(local=ends[0], remote=ends[1], carrier=cookie + 1, netns=ours)
        assert destroy(found, []) is False
        accepted.sendall(b"x")
        assert client.recv(1) == b"x"
        assert destroy(replace(found, carrier=cookie), []) is True
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)
