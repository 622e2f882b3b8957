# SPDX-License-Identifier: Apache-2.0
"""Doing each way of the coverage matrix, and what came of it as a cell.

*program* of a way is the name of the file that does it, and so its rule: ``client`` may go to
ports, ``subflow`` to an address, ``server`` may listen on ports, ``guarded`` has peers.
*started* is how: ``plain``; ``given``: another program made the socket; ``32-bit``;
``elsewhere``: in another network namespace; ``delegated``: in a child cgroup with a program of
its own; ``announced``: the peer has a second address, and says so.
"""

import contextlib
import errno
import itertools
import resource
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.coverage import ABSENT, THROUGH, Way
from tests.kernel import stage
from tests.kernel.agent import Agent, Event, field
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import REMOTE4, Network
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import PATIENCE
from tests.kernel.tap import Arrival, Tap
from tests.kernel.workshop import Workshop

FREE = "ungoverned"  # does everything the others do; its rule is to be ignored
_GIVER = "giver"
_DELEGATED = "delegated.service"

_IGNORED = """
[global]
mode = "{mode}"
detent = 0

[[app]]
exe = "ungoverned"
ignore = true

[[app]]
exe = "giver"
ignore = true
"""
_SOCKETS = 'sockets = ["sctp", "dccp", "udplite", "raw", "packet", "icmp", "vsock", "other"]'
_ALLOWING = {
    "client": f'ports = ["20000-20999"]\n{_SOCKETS}',
    "subflow": 'ports = ["20000-20999"]',
    "server": f'listen = ["1-65535"]\n{_SOCKETS}',  # also what the kernel chooses
    "guarded": 'peers = ["198.51.100.0/24", "2001:db8::/64"]',
}
_BLOCKING = {
    "client": 'ports = ["8086"]',
    "subflow": f'remotes = ["{REMOTE4}"]',
    "server": 'listen = ["8086"]',
    "guarded": 'peers = ["192.0.2.7"]',
}
_FIRST_PORT = 20000

# What a kernel says of what it does not have; EINVAL: of an io_uring request.
_LACKING = {
    "EAFNOSUPPORT",
    "EINVAL",
    "ENOSYS",
    "EOPNOTSUPP",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
}
_NOBODY_CAME = {"EAGAIN", "OK"}


def policy(mode: str) -> str:
    """The policy under which a column of the matrix is measured."""
    text = _IGNORED.format(mode="observe" if mode == "observed" else "enforce")
    action = "kill" if mode == "killed" else "block"
    for program, keys in (_ALLOWING if mode == "allowed" else _BLOCKING).items():
        text += f'\n[[app]]\nexe = "{program}"\n{keys}\nactions = ["log", "{action}"]\n'
    return text


@dataclass(frozen=True)
class Place:
    """A network namespace, with what is needed to start a program there and to see it sending."""

    network: Network
    programs: Programs
    servers: Servers
    tap: Tap

    @classmethod
    def make(cls, scratch: ScratchCgroup) -> "Place":
        network = Network()
        stage.prepare_host(network)
        return cls(network, Programs(scratch, network), Servers(network), Tap(network))

    def close(self) -> None:
        self.programs.close()
        self.tap.close()
        self.servers.close()
        self.network.close()


@dataclass(frozen=True)
class Attempt:
    """One way, done once: *word* is OK or an errno's name."""

    port: int
    word: str
    arrived: bool

    def outcome(self) -> str:
        if self.arrived:
            return THROUGH if self.word == "OK" else f"{THROUGH},{self.word}"
        return "nothing" if self.word in _NOBODY_CAME else self.word

    def hooks(self, events: list[Event]) -> list[str]:
        """The hooks that told of it, by the port: on the wire or on the command line."""
        told = {field(event, "aegis.hook") for event in events if self._caused(event)}
        if self.word == "SIGKILL" and "listen" in told:
            told.discard("ingress")  # whether somebody came before it was dead is chance
        return sorted(str(hook) for hook in told if hook)  # a notice of a kill has none

    def _caused(self, event: Event) -> bool:
        command = str(field(event, "process.command_line"))
        return (
            field(event, "destination.port") == self.port
            or command.rsplit(" ", maxsplit=1)[-1] == f"{self.port}"
        )


class Bench:
    """Does ways, each attempt on a port of its own."""

    def __init__(self, workshop: Workshop, scratch: ScratchCgroup) -> None:
        self._workshop = workshop
        self._scratch = scratch
        self._near, self._far = Place.make(scratch), Place.make(scratch)
        self._ports = itertools.count(_FIRST_PORT)
        # A server for each attempt: more than the 1024 files a guest starts with.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16384), most))
        # Beforehand: one that is still being written cannot be executed.
        for name in (FREE, _GIVER, *_ALLOWING):
            workshop.install(name)
        stage.attach_override(scratch.unit(_DELEGATED))

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def column(self, ways: tuple[Way, ...], agent: Agent) -> dict[str, str]:
        """The cell of each way under the policy in force: what came of it, and the hooks."""
        since = agent.mark()
        attempts = self._attempt_all([(way, way.program) for way in ways])
        events = agent.settled_events(since)
        return {
            name: " ".join([attempt.outcome(), "+".join(attempt.hooks(events))]).strip()
            for name, attempt in attempts.items()
        }

    def lacking(self, ways: tuple[Way, ...]) -> dict[str, str]:
        """Ways not even a program without a rule has; anything else must go through for it."""
        attempts = self._attempt_all([(way, FREE) for way in ways])
        outcomes = {name: attempt.outcome() for name, attempt in attempts.items()}
        return {
            name: ABSENT if outcome in _LACKING else outcome
            for name, outcome in outcomes.items()
            if outcome != THROUGH
        }

    def _attempt_all(self, tries: list[tuple[Way, str]]) -> dict[str, Attempt]:
        """Those out one by one, for the tap; those in at once, as most of it is waiting."""
        done = {}
        for way, program in tries:
            if way.direction == "out":
                place = self._far if way.started == "elsewhere" else self._near
                done[way.name] = self._out(way, program, next(self._ports), place)
        waiting = [(way, program) for way, program in tries if way.direction == "in"]
        with ThreadPoolExecutor(max_workers=len(waiting) or 1) as pool:
            came = {
                way.name: pool.submit(self._in, way, program, next(self._ports), self._near)
                for way, program in waiting
            }
            return done | {name: future.result() for name, future in came.items()}

    def _out(self, way: Way, program: str, port: int, place: Place) -> Attempt:
        kind = "mptcp" if way.form.startswith("mptcp") else way.arrives
        listening = stage.receivers(place.network, kind, port)
        if not listening and kind.startswith(("tcp", "udp", "mptcp")):
            place.servers.open(port)
        place.tap.take()
        with (
            stage.second_address(place.network)
            if way.started == "announced"
            else contextlib.nullcontext()
        ):
            process = self._start(way, program, port, place)
            peers = _wait(process, listening)
        word = _word(process)
        wanted = Arrival(way.arrives, ip_address(way.arrives_at or way.address), port)
        arrived = bool(peers) if way.arrives == "vsock" else wanted in place.tap.take()
        _close(peers + listening)
        return Attempt(port, word, arrived)

    def _in(self, way: Way, program: str, port: int, place: Place) -> Attempt:
        process = self._start(way, program, port, place)
        assert process.stdout is not None
        said = process.stdout.readline()
        peers = []
        if said.startswith("ready"):  # else refused before anybody could come
            port = int(said.split()[1])
            peers.append(stage.visit(place.network, way.peer, port, way.speaks))
        assert process.stdin is not None
        process.stdin.close()  # it waits for nobody else
        word = _word(process, said)
        _close(peers)
        return Attempt(port, word, arrived=word == "OK")

    def _start(self, way: Way, program: str, port: int, place: Place) -> "subprocess.Popen[str]":
        path, words = self._program(program), [way.form]
        if way.started == "32-bit":
            path = self._workshop.folder("32-bit") / program
            if not path.exists():
                path.write_bytes(self._workshop.client32.read_bytes())
                path.chmod(0o755)
        if way.started == "given":
            path, words = self._program(_GIVER), ["give", way.form, str(path)]
        unit = _DELEGATED if way.started == "delegated" else None
        return place.programs.start(path, *words, way.address, str(port), unit=unit)

    def _program(self, name: str) -> Path:
        return self._workshop.install(name)


def _wait(process: "subprocess.Popen[str]", listening: list[socket.socket]) -> list[socket.socket]:
    """Until *process* ends; who connected meanwhile was accepted."""
    if not listening:
        process.wait()  # to look again and again costs an emulated processor more
        return []
    peers: list[socket.socket] = []
    while True:
        ended = process.poll() is not None
        peers += [peer for receiver in listening if (peer := stage.accepted(receiver))]
        if ended:
            return peers
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)


def _word(process: "subprocess.Popen[str]", said: str = "") -> str:
    """OK or an errno's name, as the program said in its last line, or what killed it before."""
    assert process.stdout is not None and process.stderr is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    # Not communicate(): it would miss what readline() has read ahead.
    words, complaint = (said + process.stdout.read()).split(), process.stderr.read()
    code = process.wait()
    watchdog.cancel()
    assert not complaint, complaint
    if words and words[-1].isupper():
        return words[-1]
    if code < 0:
        return signal.Signals(-code).name
    return errno.errorcode[code] if code else "OK"  # client32 says nothing


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
