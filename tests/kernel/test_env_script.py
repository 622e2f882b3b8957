# SPDX-License-Identifier: Apache-2.0
"""``#!/usr/bin/env X``: most wrappers in the field, and two execs instead of one."""

import os

import pytest

from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
cmdline = "{script}"
ports = ["8086"]
detent = 0
actions = ["log", "block"]
"""


@pytest.mark.parametrize("first_line", ["#!/usr/bin/env bash", "#!/usr/bin/env -S bash -e"])
def test_a_wrapper_started_by_env_is_found_by_its_path(
    first_line: str, agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """The script's path is enough, though env, and not the kernel, names it to bash."""
    script = workshop.new_folder() / "wrapper"
    script.write_text(f"{first_line}\nexec 3<>/dev/tcp/127.0.0.1/$1\n")
    script.chmod(0o755)
    agent, _ = agents.share(POLICY.format(script=script))
    since = agent.mark()
    outcome = programs.run(script, "8087")
    assert "Operation not permitted" in outcome.stderr
    event = agent.wait_event(since, destination__port=8087)
    assert event["process"]["executable"] == os.path.realpath("/bin/bash")
    assert event["aegis"]["verdict"] == "blocked"
    unruled = programs.run("/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8087")
    assert "Operation not permitted" not in unruled.stderr
