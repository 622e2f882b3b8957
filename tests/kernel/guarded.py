# SPDX-License-Identifier: Apache-2.0
"""An agent with ``tamper_guard``, and what strangers are told."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aegis._bpf import lib
from aegis.bpf.adopt import link_program
from aegis.bpf.cgroup import cgroup2_mount
from aegis.bpf.guard import GUARD
from tests.kernel import strangers
from tests.kernel.agent import Event, Finished, field, matches
from tests.kernel.conftest import Agents
from tests.kernel.settings import PATIENCE
from tests.kernel.strangers import stranger
from tests.kernel.test_evidence import POLICY as RULES
from tests.kernel.test_evidence import House

POLICY = "[global]\ntamper_guard = {wanted}\n" + RULES
MARK = f"aegis-test-{os.getpid()}"  # what a run leaves when it is killed, the next takes away
_ENTER = 'echo $$ > "$0" && exec "$@"'


class Guarded:
    """The agent, alone in a cgroup of its own, and what was open before the guard came."""

    def __init__(self, agents: Agents) -> None:
        self.place = cgroup2_mount() / f"{MARK}-guarded"
        self.place.mkdir(exist_ok=True)
        enter = ("/bin/sh", "-c", _ENTER, str(self.place / "cgroup.procs"))
        self.agent, self._policy = agents.start(POLICY.format(wanted="false"), wrapper=enter)
        self.house = House(self.agent)
        self.pins = self.house.pins
        self.link = self.pins.open(self.pins.link_path("aegis_connect6"))
        self.table = self.pins.open(self.pins.map_path("hosts"))
        self.numbers = {
            "map": strangers.map_number(self.table),
            "program": link_program(self.link),
            "link": lib.aegis_link_number(self.link),
        }
        self.agent.stop()
        self.ask("true")
        self.agent.start()
        self.active = (
            f'"{GUARD}": {{"active": true' in self.agent.command("status", "--json").stdout
        )

    def ask(self, wanted: str, more: str = "") -> None:
        self._policy.replace(POLICY.format(wanted=wanted) + more)

    def close(self) -> None:
        os.close(self.link)
        os.close(self.table)

    def expect(
        self, deed: Callable[[], object], what: str, codes: tuple[int, ...] = (errno.EPERM,)
    ) -> None:
        """A stranger is refused *deed*, which is told as *what*."""
        since = self.agent.mark()
        assert stranger(deed) in codes
        event = self.agent.wait_event(since, aegis__notice="tamper-refused")
        assert field(event, "aegis.refused.what") == what, event
        assert field(event, "process.executable") == str(Path(sys.executable).resolve())
        assert field(event, "user.id") == "0"

    def refusals(self, since: int) -> list[Event]:
        """What was told, after one more that is known."""
        fence = self.agent.mark()
        assert stranger(lambda: os.kill(self.agent.pid, signal.SIGURG)) == errno.EPERM
        message = f"to send the agent signal {signal.SIGURG:d}"
        while not (told := [e for e in self._told(fence) if message in field(e, "message")]):
            time.sleep(0.05)
        return [event for event in self._told(since) if event not in told]

    def _told(self, since: int) -> list[Event]:
        self.agent.wait_event(since, aegis__notice="tamper-refused")
        return [e for e in self.agent.events(since) if matches(e, aegis__notice="tamper-refused")]


def command(*words: str) -> Finished:
    """``aegis`` by a stranger: a shell that was started by us starts it."""
    place = ("/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "aegis")
    return subprocess.run(
        [*place, *words], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/"
    )


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
