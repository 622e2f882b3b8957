# SPDX-License-Identifier: Apache-2.0
"""A broker that is there and says nothing: what waits for it, and how long."""

import os
import socket
import time
from typing import NoReturn

import pytest

from aegis.broker.client import Line
from aegis.broker.messages import Kill, Killed
from aegis.errors import BrokerError
from tests.actions.told import Told
from tests.broker.served import Served

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="brokers answer to root only")
ORDER = Kill(1, 0, 0, 0, 0, 0, "", False, False, (), 0, False)


class Silent:
    """An opener: whoever is at the other end never answers."""

    def __init__(self) -> None:
        self._ends: list[socket.socket] = []

    def __call__(self, _name: str, _uid: int, /) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.append(theirs)
        return ours

    def owns(self, _pid: int, /) -> bool:
        return False

    def close(self) -> None:
        for end in self._ends:
            end.close()


def test_one_that_hung_is_not_waited_for_as_if_it_had_yet_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kill holds up all reactions: systemd accepts for a broker that is stuck, too."""
    monkeypatch.setattr("aegis.broker.client.RETRY_S", 0.0)
    monkeypatch.setattr("aegis.broker.client.FIRST_S", 1.0)
    monkeypatch.setattr("aegis.broker.client.ANSWER_S", 0.05)
    told, silent, took = Told(), Silent(), []
    line = Line("kill", 0, silent, told)
    for _ in range(4):
        begun = time.monotonic()
        with pytest.raises(BrokerError, match="no answer within"):
            line.ask(ORDER)
        took.append(time.monotonic() - begun)
    silent.close()
    assert took[0] >= 1.0 > max(took[1:])
    assert told.kinds() == ["broker-failed"]


def test_a_defect_of_the_broker_is_an_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked does not wait in vain for it, and the next one is served."""

    def fail(*_: object) -> NoReturn:
        raise RecursionError("too deep")

    monkeypatch.setattr("aegis.broker.deeds.Strike.__call__", fail)
    line = Line("kill", 0, served, Told())
    for _ in range(2):
        answer = line.ask(ORDER)
        assert isinstance(answer, Killed) and answer.status == "failed"
        assert answer.detail.startswith("by a defect: too deep (test_hangs.py:")
    assert len(served.pids) == 1
