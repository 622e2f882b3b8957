# SPDX-License-Identifier: Apache-2.0
"""A run that is cancelled at the very moment it ends."""

import asyncio
import os
from pathlib import Path

import pytest

from aegis.actions.script_job import Command, run_command


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_is_not_lost_to_the_end_of_the_run(turns: int) -> None:
    """Else the stop of the agent waits for whatever the task does next."""

    async def scenario() -> None:
        pids: list[int] = []
        command = Command(["/bin/sleep", "0.2"], b"", {})
        task = asyncio.create_task(run_command(command, 60, pids.append))
        while not pids:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # it is waited for
        os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)  # and has ended, unseen by the loop
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


def test_a_command_gets_its_input_and_only_its_environment() -> None:
    command = Command(["/bin/sh", "-c", "cat; env"], b"text\n", {"A": "b"})
    result = asyncio.run(run_command(command, 60))
    lines = result.output.decode().splitlines()
    assert lines[0] == "text" and "A=b" in lines
    assert {line.partition("=")[0] for line in lines[1:]} <= {"A", "PWD", "_", "SHLVL", "OLDPWD"}
    assert not Path("/proc", str(result.pid)).exists()
