# SPDX-License-Identifier: Apache-2.0
"""``aegis apply``: what would lock out is refused, or taken back by the kernel in time."""

import shutil
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import ControlError
from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE4_NEAR, Network
from tests.kernel.policies import PolicyFile, write_policy
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop, make_directory

LOCKOUTS = tomllib.loads((Path(__file__).parents[1] / "lockouts.toml").read_text())["lockout"]
LATER = {one["name"]: one for one in LOCKOUTS if one["cuts"] == "later"}
SSH, PORT = 2122, 8087
LATEST_S = 60  # what is promised
SLACK = 10.0 if AT_ROOT else 1.0
BEFORE = '[[app]]\nexe = "unheard-of"\nports = ["8086"]\nactions = ["log", "block"]\n'
WATCHING = '[global]\nmode = "observe"\n' + BEFORE
CUTTING = '[[app]]\nexe = "tunnel"\nactions = ["log", "block"]\n'
DEAF = '[[app]]\nexe = "sshd"\nlisten = []\nactions = ["log", "block"]\n'


@dataclass(frozen=True)
class Tried:
    """A trial, on the monotonic clock: asked for at *begun*, in force at *applied*."""

    begun: float
    applied: float
    seconds: float

    @property
    def over(self) -> float:
        """At the latest."""
        return self.applied + self.seconds

    def wait_over(self) -> None:
        time.sleep(max(0.0, self.over + 0.5 - time.monotonic()))


class House:
    """A host with somebody logged in: sshd, a resolver, DHCP, a clock, and a tunnel."""

    def __init__(self, agent: Agent, policy: PolicyFile, tunnel: Talk, trial: PolicyFile) -> None:
        self.agent, self.policy, self.tunnel, self.trial = agent, policy, tunnel, trial

    def ask(self, request: str, **arguments: str | float | bool) -> dict[str, Any]:
        return self.agent.ask(request, **arguments)

    def apply(self, text: str, seconds: float, *, knows: bool = False) -> dict[str, Any]:
        """From a file of its own."""
        self.trial.replace(text)
        config = str(self.trial.path)
        return self.ask("apply", config=config, seconds=seconds, knows=knows)

    def is_cut(self) -> bool:
        return not self.tunnel.reaches("tcp", REMOTE4, PORT)

    def try_out(
        self, look: Callable[[], object], seconds: float = 2, *, own_file: bool = False
    ) -> "Tried":
        """CUTTING on trial, and *look* meanwhile. It is of no use unless it is done in time: then

        again, for longer, as on a machine with much else to do.
        """
        while True:
            begun = time.monotonic()
            if own_file:
                self.policy.replace(CUTTING)
                self.ask("apply", config="", seconds=seconds)
            else:
                self.apply(CUTTING, seconds)
            tried = Tried(begun, time.monotonic(), seconds)
            try:
                left = self.agent.status()["trial_s"]
                assert left is not None and left <= seconds
                look()
            except AssertionError:
                if time.monotonic() < begun + seconds or seconds > PATIENCE:
                    raise
            else:
                return tried
            self.reset()
            seconds *= 4

    def wait_uncut(self, until: float) -> float:
        """When it was seen to be free again, on the monotonic clock.

        No attempt after *until* may be refused; how long one takes is the machine's affair.
        """
        while True:
            begun = time.monotonic()
            if not self.is_cut():
                return time.monotonic()
            assert begun < until + SLACK, "not taken back in time"
            time.sleep(0.01)

    def reset(self) -> None:
        """An agent that runs, with BEFORE in force."""
        if not self.agent.is_running:
            self.policy.replace(BEFORE)
            self.agent.start()
        while self.agent_status()["held"] or self.in_trial():
            if self.in_trial():
                self.ask("give-back")
            self.policy.replace(BEFORE)
            self.ask("reload", knows=True)
        if self.policy.replace(BEFORE):
            self.ask("reload", knows=True)
        assert not self.is_cut()

    def agent_status(self) -> dict[str, Any]:
        return self.ask("status")

    def in_trial(self) -> bool:
        try:
            self.ask("reload", knows=True)
        except ControlError as error:
            return "on trial" in str(error)
        return False


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    """Of our own: others have another program called sshd."""
    made = Workshop(make_directory())
    yield made
    made.close()


Sshd = tuple["subprocess.Popen[str]", socket.socket]


def log_in(shop: Workshop, programs: Programs, network: Network) -> Sshd:
    """A ``sshd`` of our own, and who is logged in by it. What is on trial may end it."""
    ncat = shutil.which("ncat")
    assert ncat is not None
    command = (shop.install("sshd", ncat), "-l", "-k", str(SSH))
    sshd = programs.start(*command)
    deadline = time.monotonic() + PATIENCE
    while True:
        if sshd.poll() is not None:
            sshd = programs.start(*command)
        client = come_in(network)
        if client is not None:
            return sshd, client
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_house(shop: Workshop, programs: Programs) -> None:
    """A resolver, DHCP and a clock."""
    for name in ("dnsmasq", "dhclient", "chronyd"):
        assert programs.talk(shop.install(name)).reaches("tcp", "127.0.0.1", 1)


def come_in(network: Network, seconds: float = PATIENCE) -> socket.socket | None:
    """By ssh, from elsewhere; None: nobody let us in."""

    def come() -> socket.socket | None:
        client = socket.socket()
        client.settimeout(seconds)
        client.bind((REMOTE4_NEAR, 0))
        try:
            client.connect((REMOTE4, SSH))
        except OSError:
            client.close()
            return None
        return client

    return network.call(come)


@pytest.fixture(scope="module")
def session(agents: Agents, shop: Workshop, programs: Programs, network: Network) -> Iterator[None]:
    """Somebody is logged in."""
    agents.close()  # its policy may be about sshd
    sshd, client = log_in(shop, programs, network)
    start_house(shop, programs)
    with client:
        yield
    sshd.kill()  # test_existing counts whose sockets are off the map
    sshd.wait()


@pytest.fixture(scope="module")
def made(
    agents: Agents, shop: Workshop, programs: Programs, servers: Servers, session: None
) -> House:
    servers.open(PORT)
    agent, policy = agents.start(BEFORE)
    trial = write_policy(shop.new_folder(), BEFORE)
    return House(agent, policy, programs.talk(shop.install("tunnel")), trial)


@pytest.fixture
def house(made: House) -> House:
    made.reset()
    return made


@pytest.mark.parametrize("one", LOCKOUTS, ids=lambda one: one["name"])
def test_what_locks_out_is_refused_or_taken_back(one: dict[str, str], house: House) -> None:
    """Fifty of them. What sshd, DHCP and the clock need is found here, so those are refused."""
    before, begun = house.agent_status()["generation"], time.monotonic()
    try:
        house.apply(one["policy"], 1)
    except ControlError as error:
        assert "would lock you out" in str(error)
        assert house.agent_status()["generation"] == before
        assert not house.is_cut()
        return
    assert one["cuts"] not in {"sshd", "DHCP", "time"}
    while house.agent.status()["trial_s"] is not None:
        assert time.monotonic() < begun + LATEST_S
        time.sleep(0.05)
    assert house.wait_uncut(begun + 1) < begun + LATEST_S


def test_the_reason_is_said(house: House) -> None:
    """Who is cut, and the line of the policy that does it; and nothing is noted or changed."""
    house.trial.replace(DEAF)
    finished = house.agent.command("apply", "-c", str(house.trial.path))
    assert finished.returncode == 1
    assert "this policy would lock you out" in finished.stderr
    assert f"sshd: who comes in on port {SSH}" in finished.stderr
    assert house.trial.rule('exe = "sshd"') in finished.stderr


def test_it_is_in_force_until_its_time_is_over(house: House) -> None:
    """And the policy before is, whole, from then on; the agent follows and says so."""

    def look() -> None:
        assert house.is_cut()

    tried = house.try_out(look)
    assert house.wait_uncut(tried.over) >= tried.begun + tried.seconds
    house.agent.wait_stderr("policy taken back")
    assert house.agent.status()["trial_s"] is None
    assert not house.agent_status()["held"]


def test_the_kernel_does_it_without_the_agent(house: House) -> None:
    """Killed at once; the next one finds the old policy in force."""

    def look() -> None:
        house.agent.stop(signal.SIGKILL)
        assert house.is_cut()

    house.wait_uncut(house.try_out(look).over)
    house.agent.start()
    assert not house.is_cut()
    assert not house.agent_status()["held"]


@pytest.mark.parametrize("restarted", ["meanwhile", "afterwards"])
def test_an_agent_that_starts_from_the_very_file_does_not_put_it_in_force(
    restarted: str, house: House
) -> None:
    """As systemd starts it again; a reload, which somebody asks for, does."""

    def look() -> None:
        house.agent.stop(signal.SIGKILL)
        if restarted == "meanwhile":
            house.agent.start()
            assert house.is_cut()

    house.wait_uncut(house.try_out(look, 3, own_file=True).over)
    if restarted == "afterwards":
        house.agent.start()
    time.sleep(1.2)
    assert not house.is_cut()
    finished = house.agent.command("status")
    assert finished.returncode == 1
    assert "the one before it" in finished.stdout
    house.ask("reload")
    assert house.is_cut()
    assert house.agent.command("status").returncode == 0


def test_confirmed_it_stays(house: House) -> None:
    """Beyond its time; that it came from another file is said."""

    def look() -> None:
        finished = house.agent.command("confirm")
        assert finished.returncode == 0, finished.stderr
        assert f"{house.policy.path} holds another policy" in finished.stdout

    house.try_out(look).wait_over()
    assert house.is_cut()
    with pytest.raises(ControlError, match="nothing waits"):
        house.ask("confirm")


def test_confirmed_from_the_agent_s_own_file_it_outlives_the_agent(house: House) -> None:
    """Nothing of the trial is left."""
    house.policy.replace(CUTTING)
    house.ask("apply", config="", seconds=30)
    assert house.ask("confirm")["lasts"] is True
    house.agent.stop(signal.SIGKILL)
    house.agent.start()
    assert house.is_cut()
    assert not house.agent_status()["held"]


def test_it_is_confirmed_without_an_agent(house: House) -> None:
    """The command finds the kernel's tables by itself."""

    def look() -> None:
        house.agent.stop(signal.SIGKILL)
        finished = house.agent.command("confirm")
        assert finished.returncode == 0, finished.stderr

    house.try_out(look).wait_over()
    assert house.is_cut()


def test_it_is_taken_back_at_once(house: House) -> None:
    """Who sees that it is wrong need not wait."""
    house.apply(CUTTING, 600)
    assert house.is_cut()
    finished = house.agent.command("confirm", "--no")
    assert finished.returncode == 0, finished.stderr
    assert not house.is_cut()


def test_nothing_else_meanwhile(house: House) -> None:
    """Neither another trial nor a reload; both say for how long."""
    house.apply(CUTTING, 600)
    with pytest.raises(ControlError, match="on trial for"):
        house.apply(BEFORE, 1)
    with pytest.raises(ControlError, match="on trial for"):
        house.ask("reload")
    assert house.is_cut()


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan")])
def test_a_time_that_is_none_is_refused(seconds: float, house: House) -> None:
    """Nothing is put in force for no time or for ever."""
    with pytest.raises(ControlError, match="between 1 and 3600"):
        house.apply(CUTTING, seconds)
    assert not house.is_cut()


def test_to_begin_enforcing_by_reload_asks_the_same(house: House) -> None:
    """The first step from watching; whoever knows may."""
    house.policy.replace(WATCHING)
    house.ask("reload")
    house.policy.replace(DEAF)
    with pytest.raises(ControlError, match="would lock you out"):
        house.ask("reload")
    assert house.agent_status()["mode"] == "observe"
    finished = house.agent.command("reload", "--i-know")
    assert finished.returncode == 0, finished.stderr
    assert house.agent_status()["mode"] == "enforce"


def test_a_start_is_never_refused_but_says_the_same(house: House) -> None:
    """A host must not boot without its agent for what happens to run beside it."""
    house.agent.close()
    house.policy.replace(DEAF)
    begin = len(house.agent.stderr().encode())
    house.agent.start()
    house.agent.wait_stderr("this policy would lock you out", begin)
