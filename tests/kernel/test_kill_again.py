# SPDX-License-Identifier: Apache-2.0
"""Detent silences the report of a kill, never the kill."""

import signal

from tests.kernel.agent import field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "restarted"
ports = ["8086"]
actions = ["log", "kill"]
"""


def test_a_killed_program_that_is_started_again_is_killed_again(
    agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """The same flow of the same program within its detent: three dead, one report."""
    agent, _ = agents.share(POLICY)
    since = agent.mark()
    program = workshop.install("restarted", "/bin/bash")
    for _ in range(3):
        # It takes no notice of refusals: only the signal ends it.
        line = "while :; do true 3<>/dev/tcp/127.0.0.1/8087; done 2>/dev/null"
        outcome = programs.run("sh", "-c", f"{program} -c '{line}'; echo $?")
        assert outcome.stdout.strip() == str(128 + signal.SIGKILL), outcome
    events = agent.settled_events(since)
    reports = [e for e in events if field(e, "destination.port") == 8087]
    deaths = [e for e in events if field(e, "aegis.notice") == "process-killed"]
    assert (len(reports), len(deaths)) == (1, 3)
