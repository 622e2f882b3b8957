# SPDX-License-Identifier: Apache-2.0
"""While nobody is told who comes in, no program is asked of TCP's connections."""

from collections.abc import Iterator

import pytest

from tests.kernel.agent import matches
from tests.kernel.conftest import Agents
from tests.kernel.inbound import Inbound
from tests.kernel.network import PRIVATE4, Network
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

WATCH = """\
[global]
inbound = {inbound}
unconfigured_actions = ["log"]
"""
SOCKOPS = "aegis_sockops"


@pytest.fixture
def inbound(
    agents: Agents, workshop: Workshop, programs: Programs, network: Network
) -> Iterator[Inbound]:
    made = Inbound(agents, workshop, programs, network)
    yield made
    made.end()


def test_while_nobody_is_told_who_comes_no_program_is_asked(inbound: Inbound) -> None:
    """What began to listen meanwhile is watched once inbound is again."""
    agent, policy = inbound.share(WATCH.format(inbound="true"))
    assert SOCKOPS in agent.status()["attached"]
    policy.replace(WATCH.format(inbound="false"))
    agent.reload()
    assert SOCKOPS not in agent.status()["attached"]
    server, port = inbound.ready("stranger-meanwhile", "tcp", "::", 7034)
    assert inbound.connects(PRIVATE4, PRIVATE4, port)

    mark = agent.mark()
    policy.replace(WATCH.format(inbound="true"))
    agent.reload()
    assert SOCKOPS in agent.status()["attached"]
    assert inbound.connects(PRIVATE4, PRIVATE4, port)
    event = agent.wait_event(mark, process__pid=server.pid, aegis__hook="accept")
    assert matches(event, process__name="stranger-meanwhile", destination__port=port)
