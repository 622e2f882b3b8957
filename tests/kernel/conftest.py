# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the workshop, network and servers once; one agent for most of the tests."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from aegis.bpf.tiers import ACTIVE_LSMS
from tests.kernel import settings
from tests.kernel.agent import Agent, aegis
from tests.kernel.cgroup import ScratchCgroup, cgroup2_mount
from tests.kernel.network import Network
from tests.kernel.policies import FENCE, PolicyFile, write_policy
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop, make_directory, missing_tools


def what_is_missing() -> str | None:
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
    missing = what_is_missing()
    if missing is None:
        for scratch in ScratchCgroup.left_behind():
            aegis("unload", cgroup=scratch.path)
            scratch.close()
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


@pytest.fixture(scope="session")
def scratch(host: None) -> Iterator[ScratchCgroup]:
    with ScratchCgroup() as made:
        yield made


@pytest.fixture(scope="session")
def programs(scratch: ScratchCgroup, network: Network) -> Iterator[Programs]:
    made = Programs(scratch, network)
    try:
        yield made
    finally:
        made.close()


class Agents:
    """Never two agents at once: at the root cgroup the second would be refused."""

    def __init__(self, workshop: Workshop, scratch: ScratchCgroup, programs: Programs) -> None:
        self._workshop = workshop
        self._scratch = scratch
        self._programs = programs
        self._running: tuple[Agent, PolicyFile] | None = None
        self._shared = False

    def start(
        self, text: str, *flags: str, wrapper: Sequence[str] = ()
    ) -> tuple[Agent, PolicyFile]:
        """A new agent with the policy *text*."""
        self.close()
        folder = self._workshop.new_folder()
        policy = write_policy(folder, text)
        agent = Agent(policy.path, self._scratch.path, folder, self._programs, wrapper)
        self._running, self._shared = (agent, policy), False
        agent.start(*flags)
        agent.set_fence(self._workshop.install(FENCE))
        return agent, policy

    def share(self, text: str) -> tuple[Agent, PolicyFile]:
        """One that runs anyway, with the policy *text*: a reload is quicker than a start."""
        if self._running is None or not self._shared:
            started = self.start(text)
            self._shared = True
            return started
        agent, policy = self._running
        policy.replace(text)
        said = agent.reload()
        assert "aegis: reloaded" in said, said
        return agent, policy

    def close(self) -> None:
        """End and unload what runs."""
        if self._running is not None:
            agent, _ = self._running
            self._running = None
            agent.close()


@pytest.fixture(scope="session")
def agents(workshop: Workshop, scratch: ScratchCgroup, programs: Programs) -> Iterator[Agents]:
    made = Agents(workshop, scratch, programs)
    try:
        yield made
    finally:
        made.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A line for each step that failed or took its second: a guest may run out of time."""
    if settings.PROGRESS and (report.failed or report.duration > 1 or report.when == "call"):
        with Path(settings.PROGRESS).open("a") as file:
            told = f"{report.duration:7.1f} {report.outcome} {report.when} {report.nodeid}\n"
            file.write(told + (report.longreprtext[-2000:] + "\n" if report.failed else ""))


def _has_bpf_lsm() -> bool:
    return ACTIVE_LSMS.exists() and "bpf" in ACTIVE_LSMS.read_text().strip().split(",")


# In each guest it runs, and fails if the LSM is not active there.
collect_ignore = [] if settings.AT_ROOT or _has_bpf_lsm() else ["test_guard.py"]

# Without an agent first; then those that are about what is older than it; then those that share
# one; then those that want their own.
_ORDER = [
    "test_harness", "test_kernel_threads", "",
    "test_tiers", "test_guard", "test_names", "test_life",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A start costs the kernel's verifier seconds, minutes where it is emulated."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = item.path.stem if item.path.parent == here else ""
        return _ORDER.index(name if name in _ORDER else "")

    items.sort(key=rank)
