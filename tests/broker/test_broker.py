# SPDX-License-Identifier: Apache-2.0
"""Brokers that serve: what each does, what it refuses, and what comes of one that is gone."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.actions.cage import Freeze, own_cgroup
from aegis.actions.kill import Killer, KillStatus
from aegis.actions.runs import Order
from aegis.broker.brokers import Brokers
from aegis.broker.client import Line
from aegis.broker.messages import Kill, Killed, LookUp, Sever
from aegis.broker.units import Units
from aegis.broker.wire import Wire
from aegis.errors import BrokerError, ScriptError
from aegis.policy.model import Actions, Policy, Settings
from tests.actions.conftest import Write
from tests.actions.living import event_of
from tests.actions.told import Told
from tests.actions.waiting import wait_until
from tests.broker.served import Served
from tests.folders import open_to_all
from tests.kernel.cgroup import ScratchCgroup
from tests.pace import HUNG_S

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="brokers answer to root only")
DIES = Policy(Settings(unconfigured_actions=Actions(kill=True)))


class House:
    """An agent's end of all brokers."""

    def __init__(self, served: Served) -> None:
        self.served, self.told = served, Told()
        self.brokers = Brokers(Opening(served), self.told)
        self.killer = Killer(Settings(kill_budget=3), self.brokers.kill)


class Opening:
    def __init__(self, served: Served) -> None:
        self._served = served

    def __call__(self, name: str, uid: int, /) -> socket.socket:
        return self._served(name, uid)

    def owns(self, pid: int, /) -> bool:
        return self._served.owns(pid)

    def close(self) -> None:
        """The fixture does."""


@pytest.fixture
def house(served: Served) -> House:
    return House(served)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/usr/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_kill_is_done_by_the_broker(house: House, sleeper: subprocess.Popen[bytes]) -> None:
    """And what it sees decides: another start time, and it is another process."""
    wrong = house.killer.kill(event_of(sleeper.pid, start_boot_ns=1))
    assert (wrong.status, sleeper.poll()) == (KillStatus.OTHER, None)
    assert house.killer.kill(event_of(sleeper.pid)).status is KillStatus.KILLED
    assert sleeper.wait(HUNG_S) == -9
    assert len(house.served.pids) == 1


def test_who_asks_is_spared_and_whom_it_descends_from(house: House) -> None:
    for pid in (os.getpid(), os.getppid()):
        if pid > 1:
            result = house.killer.kill(event_of(pid))
            assert result.status is KillStatus.PROTECTED, result


def test_the_broker_keeps_the_budget_too(served: Served) -> None:
    """An agent that says there is some left gets no more than it says there is in a minute."""
    line, victims = Line("kill", 0, served, Told()), []
    statuses = []
    for _ in range(3):
        victims.append(subprocess.Popen(["/usr/bin/sleep", "60"]))
        killer = Killer(Settings(kill_budget=2))
        order = killer._order(event_of(victims[-1].pid))
        answer = line.ask(Kill.of(order))
        assert isinstance(answer, Killed)
        statuses.append(answer.status)
    for victim in victims:
        victim.kill()
        victim.wait()
    assert statuses == ["killed", "killed", "over-budget"]


def test_a_broker_that_died_is_asked_again_and_nothing_is_lost(
    house: House, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aegis.broker.client.RETRY_S", 0.0)
    house.killer.kill(event_of(sleeper.pid, start_boot_ns=1))
    house.served.end()
    assert house.killer.kill(event_of(sleeper.pid)).status is KillStatus.KILLED
    assert house.told.kinds() == []


def test_without_a_broker_a_kill_fails_and_it_is_told_once(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    told = Told()
    brokers = Brokers(Units(tmp_path), told)
    killer = Killer(Settings(), brokers.kill)
    brokers.want(DIES)
    results = [killer.kill(event_of(sleeper.pid)) for _ in range(3)]
    assert {result.status for result in results} == {KillStatus.FAILED}
    assert killer.outcomes == {"failed": 3}
    assert told.kinds() == ["broker-failed"]
    assert sleeper.poll() is None
    (line,) = brokers.wrong()
    assert "the kill broker does not answer" in line


def test_one_that_hangs_does_not_hold_the_agent_up_for_long(
    house: House, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    house.killer.kill(event_of(sleeper.pid, start_boot_ns=1))
    monkeypatch.setattr("aegis.broker.client.ANSWER_S", 0.3)
    os.kill(house.served.pids[0], signal.SIGSTOP)
    began = time.monotonic()
    result = house.killer.kill(event_of(sleeper.pid))
    assert result.status is KillStatus.FAILED
    assert "no answer within 0.3 s" in result.detail
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "data",
    [b"hello", b"{}", b"x" * 200_000, b'{"v": 1, "kind": "LookUp", "id": 1, "name": "localhost"}'],
    ids=["no-message", "no-version", "too-long", "another-broker-s"],
)
def test_a_broker_that_is_asked_for_anything_else_hangs_up(served: Served, data: bytes) -> None:
    """And does nothing of it; the process it was for lives on."""
    connection = served("kill")
    connection.settimeout(HUNG_S)
    connection.send(data)
    assert connection.recv(100) == b""
    assert os.waitpid(served.pids.pop(), 0)[1] == 0


def test_descriptors_that_come_along_are_not_kept(served: Served) -> None:
    """A thousand for the kill broker, which wants none: it goes on."""
    connection, null = served("kill"), os.open(os.devnull, os.O_RDONLY)
    order = Killer(Settings())._order(event_of(served.pids[0], start_boot_ns=1))
    wire, place = Wire(connection), Path(f"/proc/{served.pids[0]}/fd")
    wire.send(Kill.of(order))
    wire.wait(HUNG_S)
    before = len(list(place.iterdir()))
    for _ in range(1000):
        wire.send(Kill.of(order), (null, null))
        answer, _ = wire.wait(HUNG_S)
        assert isinstance(answer, Killed)
    os.close(null)
    # Fewer: what the tests before left to be collected was born with it.
    assert len(list(place.iterdir())) <= before


ASK = f"""
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout({HUNG_S})
s.connect(sys.argv[1])
try:
    s.send(b"x"); print(s.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.usefixtures("seen_by_nobody")
def test_only_root_is_answered(tmp_path: Path) -> None:
    """Another user who comes by the socket is not even read."""
    path = tmp_path / "kill"
    open_to_all(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        asker = subprocess.Popen(
            [sys.executable, "-I", "-c", ASK, str(path)],
            stdout=subprocess.PIPE,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
        )
        connection, _ = listener.accept()
        with pytest.raises(BrokerError, match="belongs to uid 65534"):
            Wire(connection)
        assert asker.wait(HUNG_S) == 0


def order_of(script: Path, uid: int = 0, limit: float = 20.0) -> tuple[Order, int]:
    fd = os.open(script, os.O_RDONLY | os.O_CLOEXEC)
    return Order(str(script), b"text\n", {"AEGIS_EVENT_ID": "e-1"}, limit, uid, "e-1", fd), fd


def test_a_script_is_run_by_the_broker(house: House, write_script: Write) -> None:
    """With its input, its environment and its number; its output comes back."""
    script = write_script("hook", "#!/bin/sh\nread line; echo $line $AEGIS_EVENT_ID; exit 3\n")
    order, fd = order_of(script)
    pids: list[int] = []
    result = asyncio.run(house.brokers.run(order, lambda pid, _: pids.append(pid)))
    os.close(fd)
    assert (result.status, result.output, result.timed_out) == (3, b"text e-1\n", False)
    assert pids == [result.pid]


def test_a_script_of_another_owner_is_refused_by_the_broker_too(
    house: House, write_script: Write
) -> None:
    script = write_script("hook", "#!/bin/sh\nexit 0\n")
    os.chown(script, 65534, 65534)
    order, fd = order_of(script)
    with pytest.raises(ScriptError, match="hooks broker"):
        asyncio.run(house.brokers.run(order))
    os.close(fd)


def test_a_script_ends_at_its_limit_though_the_agent_is_gone(
    served: Served, write_script: Write, tmp_path: Path
) -> None:
    """Whoever asked closed the connection: the broker still ends it, and itself."""
    place = tmp_path / "pid"
    script = write_script("hook", f"#!/bin/sh\necho $$ > {place}\nexec sleep 600\n")
    order, fd = order_of(script, limit=1.0)

    async def ask_and_go() -> None:
        brokers = Brokers(Opening(served), Told())
        asking = asyncio.create_task(brokers.run(order))
        while not place.exists() or not place.read_text():
            await asyncio.sleep(0.01)
        brokers.close()
        with pytest.raises(ScriptError):
            await asking

    asyncio.run(ask_and_go())
    os.close(fd)
    began = time.monotonic()
    assert os.waitpid(served.pids.pop(), 0)[1] == 0
    assert time.monotonic() - began < 5
    wait_until(lambda: not Path("/proc", place.read_text().strip()).exists())


def test_a_cancelled_script_is_ended(house: House, write_script: Write, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    script = write_script("hook", f"#!/bin/sh\necho $$ > {place}\nexec sleep 600\n")
    order, fd = order_of(script)

    async def cancel() -> None:
        asking = asyncio.create_task(house.brokers.run(order))
        while not place.exists() or not place.read_text():
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancel())
    os.close(fd)
    # Who asked waits for its end no longer than ANSWER_S.
    wait_until(lambda: not Path("/proc", place.read_text().strip()).exists())


def test_a_name_is_looked_up_by_the_broker(house: House) -> None:
    """As nobody; a wrong one is an answer too."""

    async def both() -> None:
        local = await house.brokers.look_up("localhost", HUNG_S)
        assert any(address.is_loopback for address in local.addresses)
        pid = house.served.pids[0]
        assert Path(f"/proc/{pid}").stat().st_uid == 65534
        answer = await house.brokers.look_up("x" * 300, HUNG_S)
        assert answer.error and not answer.addresses

    asyncio.run(both())


def test_what_waits_for_a_broker_that_dies_is_told(house: House, write_script: Write) -> None:
    script = write_script("hook", "#!/bin/sh\nsleep 60\n")
    order, fd = order_of(script)

    async def die() -> None:
        started = asyncio.Event()
        asking = asyncio.create_task(house.brokers.run(order, lambda _pid, _freeze: started.set()))
        await started.wait()
        house.served.end()
        with pytest.raises(ScriptError, match="it ended before it answered"):
            await asking

    asyncio.run(die())
    os.close(fd)
    assert house.told.kinds() == ["broker-failed"]


def test_a_socket_that_is_not_there_is_not_found(served: Served) -> None:
    """In the network namespace of who asks; nothing is closed."""
    netns = Path("/proc/self/ns/net").stat().st_ino
    ends = Sever(netns, 2, 6, 0, 1, "00" * 10 + "ffff7f000001", 1, "00" * 10 + "ffff7f000001", 2,
                 (os.getpid(),))  # fmt: skip
    answer = Line("sever", 0, served, Told()).ask(ends)
    assert getattr(answer, "found", None) is False


def test_names_are_not_the_kill_broker_s(served: Served) -> None:
    with pytest.raises(BrokerError):
        Line("kill", 0, served, Told()).ask(LookUp(1, "localhost"))


@pytest.fixture
def own_place() -> Iterator[None]:
    """As a service has one: the root cgroup of this machine may be closed to root itself."""
    home = own_cgroup()
    assert home is not None
    with ScratchCgroup() as scratch:
        (scratch.path / "cgroup.procs").write_text(str(os.getpid()))
        yield
        (home / "cgroup.procs").write_text(str(os.getpid()))


@pytest.mark.usefixtures("own_place")
def test_a_run_is_suspended_and_goes_on(house: House, write_script: Write, tmp_path: Path) -> None:
    """By its cgroup; cancelled while it is suspended, it ends."""
    place = tmp_path / "count"
    script = write_script("hook", f"#!/bin/sh\nwhile :; do echo >> {place}; sleep 0.05; done\n")
    order, fd = order_of(script)
    given: list[Freeze | None] = []

    async def suspend() -> None:
        asking = asyncio.create_task(
            house.brokers.run(order, lambda _, freeze: given.append(freeze))
        )
        while not (given and place.exists()):
            await asyncio.sleep(0.01)
        (freeze,) = given
        assert freeze is not None
        assert freeze(True)
        await asyncio.sleep(0.5)
        before = place.stat().st_size
        await asyncio.sleep(0.5)
        assert place.stat().st_size == before
        freeze(False)
        while place.stat().st_size == before:
            await asyncio.sleep(0.01)
        freeze(True)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(suspend())
    os.close(fd)
