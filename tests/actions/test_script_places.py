# SPDX-License-Identifier: Apache-2.0
"""More scripts that hang than there are places, at their very first events: nobody waits for them.

Everything the issue of reactions names is in one directory with one that behaves.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from aegis.actions import script_places
from aegis.actions.cage import Cage
from aegis.actions.runs import Runs
from aegis.actions.script import LOOK_S, ScriptRunner
from aegis.actions.script_places import Places, Run
from aegis.events.ecs import to_ecs
from aegis.policy.model import Settings
from tests.actions.conftest import Write
from tests.actions.hooks import CONTEXT, Hooks
from tests.actions.processes import processes_of
from tests.events.factory import make_event
from tests.pace import HUNG_S

MARK = f"73.125{os.getpid()}"
HANG = f"#!/bin/sh\nexec sleep {MARK}\n"
BAD = {
    "00-sleeps": HANG,
    "01-loops": "#!/bin/sh\nwhile :; do :; done\n",
    "02-stops-itself": "#!/bin/sh\nkill -STOP $$\n",
    "03-ignores": f"#!/bin/sh\ntrap '' TERM HUP INT\nwhile :; do sleep {MARK}; done\n",
    "04-detaches": f"#!/bin/sh\nsetsid sh -c 'setsid sleep {MARK} &' &\nexec sleep {MARK}\n",
    "05-prints": "#!/bin/sh\nexec head -c 1073741824 /dev/zero\n",
    "06-prints-for-ever": "#!/bin/sh\nexec cat /dev/zero\n",
    "07-exits": "#!/bin/sh\nexit 139\n",
    "08-no-interpreter": "#!/nonexistent\n",
}
LIMIT = 10
TURN_S = 0.3


class Clocked:
    """A ``Tell`` that knows when what ended."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.ended: dict[str, float] = {}
        self.kinds: dict[str, str] = {}

    def __call__(self, kind: str, message: str, fields: Any) -> None:
        name = fields.get("process", {}).get("name", message)
        self.ended[name] = time.monotonic() - self.begun
        self.kinds[name] = kind


@pytest.mark.parametrize("jobs", [4, 1])
def test_nobody_waits_for_what_hangs_at_its_first_event(
    jobs: int, hooks: Hooks, write_script: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good one is the last of the directory, and no script is known yet."""
    monkeypatch.setattr(script_places, "TURN_S", TURN_S)
    for name, text in BAD.items():
        write_script(name, text)
    write_script("98-not-executable", "#!/bin/sh\n").chmod(0o644)
    write_script("99-good", "#!/bin/sh\n")
    hooks.settings |= {"script_jobs": jobs, "script_timeout": LIMIT}
    told = Clocked()
    first = 0.0

    async def scenario() -> None:
        nonlocal first
        runner = ScriptRunner(Settings(**hooks.settings), told, Runs(hooks.home))
        told.begun = time.monotonic()
        runner.submit(to_ecs(make_event(), CONTEXT), {}, None)
        await asyncio.sleep(0.1)
        Path(hooks.settings["script_dirs"][0], "07-exits").unlink()  # while it waits
        while "99-good" not in told.ended:
            await asyncio.sleep(0.01)
        first = told.ended["99-good"]
        runner.submit(to_ecs(make_event(), CONTEXT), {}, ("99-good",))
        while told.ended["99-good"] == first:
            await asyncio.sleep(0.01)
        assert told.ended["99-good"] - first < 2.5
        await runner.drain()

    asyncio.run(asyncio.wait_for(scenario(), 3 * HUNG_S))
    assert told.kinds["99-good"] == "script-finished"
    # Each of the eight before it has its turn; without turns it would wait for the limit.
    bound = 2 + 8 * (TURN_S + LOOK_S) / max(1, jobs - 1)
    assert bound < LIMIT
    assert first < bound
    assert told.kinds["00-sleeps"] == told.kinds["02-stops-itself"] == "script-timeout"
    assert processes_of(MARK) == []


def test_of_those_that_last_long_each_has_its_turn(
    hooks: Hooks, write_script: Write, tmp_path: Path
) -> None:
    """Never more than ``script_jobs`` at work; all of them end, also those that were suspended."""
    for number in range(4):
        write_script(
            f"{number}-long",
            f"#!/bin/bash\nfor ((i = 0; i < 15; i++)); do date +%s%N >>{tmp_path}/{number}\n"
            "sleep 0.1; done\n",
        )
    hooks.settings |= {"script_jobs": 2, "script_timeout": 30}
    assert hooks.run() < 15
    assert hooks.told.kinds() == ["script-finished"] * 4
    beats = [
        [int(line) for line in (tmp_path / str(number)).read_text().split()] for number in range(4)
    ]
    assert [len(beat) for beat in beats] == [15] * 4
    begun = sorted(beat[0] for beat in beats)
    ended = min(beat[-1] for beat in beats)
    assert begun[2] < ended  # somebody began before anybody had ended: it had another's place


def test_without_a_cgroup_nothing_is_suspended(write_script: Write) -> None:
    run = Run(Path("/hook"))
    assert not run.switch(suspended=True) and not run.suspended


def test_who_may_well_hang_makes_room_first(hooks: Hooks) -> None:
    """A script that always ended by itself keeps its place as long as another can give one."""
    assert hooks.home is not None
    places, cages = Places(2), [Cage(hooks.home / name) for name in ("a", "b")]
    good, unknown = Path("/good"), Path("/unknown")
    places.learn(good, hangs=False)
    runs = [Run(good, cages[0].freeze, since=0.0), Run(unknown, cages[1].freeze, since=1.0)]
    places.runs |= set(runs)
    assert not places.has_room and places.make_room()
    assert [run.suspended for run in runs] == [False, True]
    assert places.pick_in_need([good, unknown, Path("/new")]) == Path("/new")
    assert all(cage.remove() for cage in cages)
