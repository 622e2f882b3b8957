# SPDX-License-Identifier: Apache-2.0
"""Who is a helper of Aegis, so that no rule has it killed; and who only looks like one."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.actions.kill import Killer, KillStatus
from aegis.actions.notify import Notifier
from aegis.actions.processes import TICK_NS, children, read_stat
from aegis.broker.brokers import Brokers
from aegis.broker.starter import Starter
from aegis.broker.units import Units
from aegis.events.event import KillBy
from aegis.policy.model import Notify, Settings
from tests.actions.living import event_of
from tests.actions.told import Told
from tests.actions.waiting import wait_until
from tests.pace import HUNG_S

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="brokers answer to root only")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/usr/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_no_rule_kills_a_broker(sleeper: subprocess.Popen[bytes]) -> None:
    """A rule that names python3, say; another python3 has no such luck."""
    starter = Starter(lambda _: None)
    brokers = Brokers(starter, Told())
    connection = starter("names", 0)
    try:
        wait_until(lambda: len(children().get(starter.pid, ())) == 1)
        killer = Killer(Settings())
        killer.is_ours = lambda event: brokers.owns(event.pid)
        [broker] = children()[starter.pid]
        for pid in (broker, starter.pid):
            result = killer.kill(event_of(pid, kill=KillBy.AGENT))
            assert (result.status, result.detail) == (KillStatus.PROTECTED, "a helper of Aegis")
            assert not read_stat(pid).has_ended
        assert killer.kill(event_of(sleeper.pid, kill=KillBy.AGENT)).status is KillStatus.KILLED
        assert sleeper.wait(HUNG_S) == -9
        gone = sleeper.pid
        assert not starter.owns(gone) and not starter.owns(1) and not starter.owns(os.getpid())
    finally:
        connection.close()
        starter.close()


@pytest.mark.parametrize(
    ("place", "owned"),
    [
        ("/system.slice/aegis-names.service", True),
        ("/system.slice/aegis-sever.service", True),
        ("/system.slice/aegis-names.service/made-below", False),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/aegis-names.service", False),
        ("/system.slice/aegis-hooks@0.service", False),  # scripts are there
        ("/system.slice/aegis-names.service.d", False),
        ("/", False),
    ],
)
def test_under_systemd_its_cgroup_says_who_it_is(tmp_path: Path, place: str, owned: bool) -> None:
    """Whose name an unprivileged user may give to a cgroup of their own, elsewhere."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(f"1:name=systemd:/x\n0::{place}\n")
    units = Units(proc=tmp_path)
    assert units.owns(7) is owned
    assert not units.owns(8)  # ended


def test_no_rule_kills_who_sends_a_notification(sleeper: subprocess.Popen[bytes]) -> None:
    """But whoever is given its number afterwards."""
    notifier = Notifier(Notify(), Told())
    notifier.note(sleeper.pid)
    start = read_stat(sleeper.pid).start_ticks * TICK_NS
    assert notifier.is_own(sleeper.pid, start)
    assert not notifier.is_own(sleeper.pid, start + TICK_NS)
    assert not notifier.is_own(os.getpid(), start)
    killer = Killer(Settings())
    killer.is_ours = lambda event: notifier.is_own(event.pid, event.start_boot_ns)
    event = event_of(sleeper.pid, kill=KillBy.AGENT)
    assert killer.kill(event).status is KillStatus.PROTECTED
    assert sleeper.poll() is None
