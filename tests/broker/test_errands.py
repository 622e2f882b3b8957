# SPDX-License-Identifier: Apache-2.0
"""What a reload has done by brokers: links followed where root may not look, and attaching."""

import os
import socket
from pathlib import Path

import pytest

from aegis.broker.brokers import Brokers
from aegis.broker.messages import Attach, Follow, LookUp, Message
from aegis.broker.wire import Wire
from aegis.errors import BrokerError, KernelError
from tests.actions.told import Told
from tests.broker.served import Served
from tests.pace import HUNG_S

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="brokers answer to root only")


class _Nobody:
    """An opener that finds none."""

    def __call__(self, name: str, _uid: int, /) -> socket.socket:
        raise BrokerError(f"no {name}")

    def owns(self, _pid: int, /) -> bool:
        return False

    def close(self) -> None:
        """There is nothing."""


@pytest.fixture
def brokers(served: Served) -> Brokers:
    return Brokers(served, Told())


def test_links_are_followed_and_one_broker_does_all_of_a_reading(
    brokers: Brokers, served: Served, tmp_path: Path
) -> None:
    """Nobody is started to whom nobody comes."""
    (tmp_path / "link").symlink_to("file")
    with brokers.following():
        pass
    assert served.pids == []
    with brokers.following() as follow:
        assert follow(str(tmp_path / "link")) == str(tmp_path / "file")
        assert follow(str(tmp_path / "caf\udce9")) == str(tmp_path / "caf\udce9")
    assert len(served.pids) == 1
    os.waitpid(served.pids.pop(), 0)  # it ends with the reading


def test_who_is_not_there_is_an_error_of_who_asks() -> None:
    """A reload's, which changes nothing then; it is not told besides."""

    told = Told()
    brokers = Brokers(_Nobody(), told)
    with (
        brokers.following() as follow,
        pytest.raises(BrokerError, match="paths broker does not answer: no paths"),
    ):
        follow("/x")
    with pytest.raises(BrokerError, match="attach broker does not answer: no attach"):
        brokers.attach(0, 1)
    assert told.notices == [] and brokers.wrong() == []


def test_what_is_no_program_is_not_attached(brokers: Brokers, served: Served) -> None:
    """And it says so, in the kernel's words."""
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    with pytest.raises(KernelError, match=r"attaching to packets: .*Invalid argument"):
        brokers.attach(fd, fd)
    os.close(fd)
    os.waitpid(served.pids.pop(), 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paths", Follow("relative")),
        ("paths", LookUp(1, "localhost")),
        ("attach", Attach()),  # without what is to be attached
        ("attach", Follow("/x")),
        ("kill", Follow("/x")),
        ("names", Attach()),
    ],
)
def test_it_does_nothing_else(served: Served, name: str, message: Message) -> None:
    wire = Wire(served(name))
    wire.send(message)
    with pytest.raises(BrokerError, match="gone"):
        wire.wait(HUNG_S)
    wire.close()
