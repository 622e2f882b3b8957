# SPDX-License-Identifier: Apache-2.0
"""Where is measured: cgroups without a program, with an empty one and with Aegis, side by side."""

import contextlib
import itertools
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.policies import Shape, write_policy
from tests.kernel.agent import Agent
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import Network
from tests.kernel.programs import Programs, Talk
from tests.kernel.stage import attach_empty
from tests.kernel.workshop import Workshop, make_directory

HERE = Path(__file__).parent
_serial = itertools.count(1)


@dataclass(frozen=True)
class Size:
    """How much is measured. A smoke run only shows that it can be."""

    smoke: bool = False

    def of(self, full: int, smoke: int = 2) -> int:
        return smoke if self.smoke else full


class Place:
    """A cgroup and a network of its own; *outside* is a cgroup that stays ungoverned."""

    def __init__(self, world: "World", stack: ExitStack) -> None:
        self.world = world
        self.cgroup = stack.enter_context(ScratchCgroup())
        self.network = stack.enter_context(contextlib.closing(Network()))
        self.programs = stack.enter_context(contextlib.closing(Programs(self.cgroup, self.network)))
        self._outside = stack.enter_context(ScratchCgroup())
        self._stack = stack
        self._agent: Agent | None = None

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    def loop(self, cpu: int = 0, *, program: Path | None = None, outside: bool = False) -> Talk:
        """The timed loops, as a process that waits for commands; on one CPU, -1: any.

        *program*: ``world.by_user``, of which nothing is recalled.
        """
        programs = self._programs(self.network, outside=True) if outside else self.programs
        return Talk(programs.start(program or self.world.loop, str(cpu)))

    def govern(self, shape: Shape, wrapper: Sequence[str] = ()) -> Agent:
        """Start an agent for this cgroup, with a policy of *shape*."""
        folder = self.world.workshop.new_folder()
        timed = [self.world.loop, self.world.late, self.world.peer]
        policy = write_policy(folder, timed, self.world.by_user, shape)
        agent = Agent(policy, self.cgroup.path, folder, wrapper=wrapper)
        self._stack.callback(agent.close)
        agent.start()
        self._agent = agent
        return agent

    def empty(self) -> "Place":
        """Attach a program that allows everything, where Aegis has its own for connect()."""
        attach_empty(self.cgroup.path)
        return self

    def peer(self) -> Network:
        """A network at the other end of a veth pair: 10.77.0.1 is here, 10.77.0.2 there."""
        far = self._stack.enter_context(contextlib.closing(Network()))
        name = f"ab{os.getpid() % 100000}-{next(_serial)}"
        there = far.call(threading.get_native_id)

        def here(*words: str) -> None:
            self.network.call(subprocess.run, ["ip", *words], check=True)

        here("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
        here("link", "set", f"{name}b", "netns", str(there))
        here("address", "add", "10.77.0.1/24", "dev", f"{name}a")
        here("link", "set", f"{name}a", "up")
        for words in (
            ("address", "add", "10.77.0.2/24", "dev", f"{name}b"),
            ("link", "set", f"{name}b", "up"),
        ):
            far.call(subprocess.run, ["ip", *words], check=True)
        return far

    def _programs(self, network: Network, *, outside: bool) -> Programs:
        cgroup = self._outside if outside else self.cgroup
        return self._stack.enter_context(contextlib.closing(Programs(cgroup, network)))

    def serve(
        self, network: Network, *argv: str | Path, ready: str = "", outside: bool = False
    ) -> None:
        """Run a server in *network*, in this cgroup, until the end."""
        process = self._programs(network, outside=outside).start(*argv)
        assert process.stdout is not None
        assert not ready or process.stdout.readline().strip() == ready


class World:
    """What every benchmark needs; made once for a run."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._stack = ExitStack()
        self.workshop = Workshop(make_directory())
        self._stack.callback(self.workshop.close)
        self.loop, self.peer, self.late = (
            self.workshop.compile(f"bench-{name}", HERE / f"{name}.c")
            for name in ("loop", "peer", "late")
        )
        self.by_user = self.workshop.compile("bench-by-user", HERE / "loop.c")

    @contextmanager
    def places(self, *names: str) -> Iterator[dict[str, Place]]:
        """A place for each of *names*, gone afterwards."""
        with ExitStack() as stack:
            yield {name: Place(self, stack.enter_context(ExitStack())) for name in names}

    def close(self) -> None:
        self._stack.close()


def memlock(fd: int) -> int:
    """What the kernel says a map of ours holds, bytes."""
    found = re.search(r"^memlock:\s+(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.M)
    assert found, "this kernel does not say how large a map is"
    return int(found[1])
