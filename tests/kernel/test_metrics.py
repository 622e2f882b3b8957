# SPDX-License-Identifier: Apache-2.0
"""The metrics of a running agent, read as the node exporter would."""

import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0
metrics_file = "{path}"

[[app]]
exe = "measured"
ports = ["8086"]
actions = ["log", "block"]
"""


class House:
    """One agent, its policy, and what it last wrote."""

    def __init__(self, agents: Agents, workshop: Workshop) -> None:
        self.path = workshop.new_folder() / "aegis.prom"
        self.agent, self.policy = agents.start(POLICY.format(path=self.path))

    def metrics(self) -> dict[str, float]:
        """By name and labels, of after this call: a reload writes them at once.

        They are written now and then, too: those may be of before the reload.
        """
        if self.path.exists():
            self.path.unlink()
        self.agent.reload()
        status, deadline = self.agent.status()["agent"], time.monotonic() + PATIENCE
        wanted = (status["generation"], status["last_reload_ok"])
        while (found := self._read()) is None or (
            (found["aegis_policy_generation"], found["aegis_last_reload_ok"]) != wanted
        ):
            assert time.monotonic() < deadline, self.agent.stderr()
            time.sleep(0.02)
        return found

    def _read(self) -> dict[str, float] | None:
        if not self.path.exists():
            return None
        families = text_string_to_metric_families(self.path.read_text())
        return {
            " ".join((sample.name, *sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def house(agents: Agents, workshop: Workshop) -> Iterator[House]:
    yield House(agents, workshop)
    agents.close()


@pytest.fixture
def agent(house: House) -> Agent:
    return house.agent


@pytest.fixture
def policy(house: House) -> PolicyFile:
    return house.policy


def test_metrics_are_the_kernels_own_numbers(
    house: House, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Ten refusals more read ten more, and every law holds."""
    before = house.metrics()
    outcome = programs.run(workshop.install("measured"), "tcp", "127.0.0.1", "8087", "10")
    assert outcome.stdout.split() == ["EPERM"] * 10
    agent.settle()
    after = house.metrics()
    refused = "aegis_decisions_total blocked"
    emitted = "aegis_outcomes_total emitted"
    assert after[refused] - before[refused] >= 10 and after[emitted] - before[emitted] >= 10
    if not AT_ROOT:
        assert after[refused] - before[refused] == 10
    assert after["aegis_log_lines_total written"] > before["aegis_log_lines_total written"]
    assert {after[f"aegis_balanced {law}"] for law in ("outcomes", "verdicts", "history")} == {1}
    assert after["aegis_map_entries procs"] >= 2
    assert 0 <= after["aegis_ring_bytes"] < after["aegis_ring_max_bytes"]


def test_a_failed_reload_shows_until_one_succeeds(house: House, policy: PolicyFile) -> None:
    good = house.metrics()
    assert good["aegis_last_reload_ok"] == 1
    text = policy.path.read_text()
    policy.path.write_text(text + "nonsense = 1\n")
    bad = house.metrics()
    policy.path.write_text(text)
    assert bad["aegis_last_reload_ok"] == 0
    assert bad["aegis_policy_generation"] == good["aegis_policy_generation"]
    better = house.metrics()
    assert better["aegis_last_reload_ok"] == 1
    assert better["aegis_policy_generation"] == good["aegis_policy_generation"] + 1
