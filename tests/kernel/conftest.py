# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the workshop, network and servers once; a cgroup and an agent for each policy."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.kernel import settings
from tests.kernel.agent import Agent
from tests.kernel.cgroup import ScratchCgroup, cgroup2_mount
from tests.kernel.network import Network
from tests.kernel.policies import FENCE, PolicyFile, write_policy
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop, make_directory, missing_tools

StartAgent = Callable[..., tuple[Agent, PolicyFile]]


def _what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "kernel tests need root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "kernel tests need BTF (/sys/kernel/btf/vmlinux)"
    if cgroup2_mount() is None:
        return "kernel tests need a mounted cgroup2"
    if tools := missing_tools():
        return f"kernel tests need {', '.join(tools)}"
    return None


@pytest.fixture(scope="session", autouse=True)
def host() -> None:
    """Skip where the kernel tests cannot run; fail where they must."""
    missing = _what_is_missing()
    if missing is None:
        return
    if settings.REQUIRED:
        pytest.fail(f"AEGIS_KERNEL_TESTS=1, but {missing}")
    pytest.skip(missing)


@pytest.fixture(scope="session")
def workshop(host: None) -> Iterator[Workshop]:
    made = Workshop(make_directory())
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def network(host: None) -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def servers(network: Network) -> Iterator[Servers]:
    made = Servers(network)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def scratch(host: None) -> Iterator[ScratchCgroup]:
    with ScratchCgroup() as made:
        yield made


@pytest.fixture(scope="module")
def programs(scratch: ScratchCgroup, network: Network) -> Iterator[Programs]:
    made = Programs(scratch, network)
    try:
        yield made
    finally:
        made.close()


def _start(
    stack: contextlib.ExitStack,
    workshop: Workshop,
    scratch: ScratchCgroup,
    programs: Programs,
) -> StartAgent:
    def start(text: str, *flags: str, wrapper: Sequence[str] = ()) -> tuple[Agent, PolicyFile]:
        folder = workshop.new_folder()
        policy = write_policy(folder, text)
        agent = Agent(policy.path, scratch.path, folder, programs, wrapper)
        stack.callback(agent.close)
        agent.start(*flags)
        agent.set_fence(workshop.install(FENCE))
        return agent, policy

    return start


@pytest.fixture(scope="module")
def start_module_agent(
    workshop: Workshop, scratch: ScratchCgroup, programs: Programs
) -> Iterator[StartAgent]:
    """Starts the one agent of a module; it is unloaded after the module's last test."""
    with contextlib.ExitStack() as stack:
        yield _start(stack, workshop, scratch, programs)


@pytest.fixture
def start_agent(
    workshop: Workshop, scratch: ScratchCgroup, programs: Programs
) -> Iterator[StartAgent]:
    """Starts an agent for one test; it is unloaded after it."""
    with contextlib.ExitStack() as stack:
        yield _start(stack, workshop, scratch, programs)
