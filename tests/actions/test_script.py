# SPDX-License-Identifier: Apache-2.0
"""Hook scripts that behave, and all the ways in which they do not."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.actions import script as script_module
from aegis.actions.runs import Runs
from aegis.actions.script import ScriptRunner
from aegis.actions.script_env import script_env
from aegis.actions.script_file import open_script
from aegis.events.ecs import to_ecs
from aegis.policy.model import Settings
from tests.actions.conftest import Write
from tests.actions.hooks import CONTEXT, Hooks
from tests.actions.processes import PID, processes_of
from tests.events.factory import make_event
from tests.pace import HUNG_S, quickest


def test_environment_is_what_is_documented_and_nothing_else(
    hooks: Hooks, write_script: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script("hook", "#!/bin/sh\ncat /proc/$$/environ\n")
    monkeypatch.setenv("AEGIS_OF_THE_AGENT", "x")
    hooks.run()
    names = {line.partition("=")[0] for line in hooks.output().split("\0") if line}
    event = make_event()
    assert names == set(script_env(event, to_ecs(event, CONTEXT)))


PYTHON = "#!/usr/bin/python3 -I\n"


def test_script_is_run_in_clean_surroundings(hooks: Hooks, write_script: Write) -> None:
    """Directory, descriptors, session, signals and umask are not the agent's."""
    write_script(
        "hook",
        PYTHON
        + """
import json, os, sys
blocked = next(l for l in open("/proc/self/status") if l.startswith("SigBlk")).split()[1]
fds = sorted(int(n) for n in os.listdir("/proc/self/fd"))
me = [n for n in fds if n > 2 and os.path.exists(f"/proc/self/fd/{n}")
      and os.readlink(f"/proc/self/fd/{n}").startswith("/run/aegis-test-")]
print(json.dumps({
    "cwd": os.getcwd(), "argv0": sys.argv[0], "blocked": blocked, "umask": os.umask(0),
    "leader": os.getsid(0) == os.getpgrp() == os.getpid(),
    "others": len(set(fds) - {0, 1, 2} - set(me)) - 1, "me": len(set(me)),
    "event": json.load(sys.stdin),
}))
""",
    )
    hooks.settings["script_timeout"] = 30
    with Path("/dev/null").open() as extra:
        os.set_inheritable(extra.fileno(), True)
        hooks.run(path="/tmp/\udcff")  # noqa: S108
    seen = json.loads(hooks.output())
    event = seen.pop("event")
    assert event["aegis"]["hex"]["executable"] == b"/tmp/\xff".hex()
    assert event["rule"]["name"] == "/etc/aegis.d/curl.toml:3"
    argv0 = seen.pop("argv0")
    assert argv0.startswith("/proc/self/fd/")
    # Of other descriptors only the listing's own.
    assert seen == {
        "cwd": "/",
        "blocked": "0" * 16,
        "umask": 0o077,
        "leader": True,
        "others": 0,
        "me": 1,
    }


def test_a_program_without_interpreter_runs_too(hooks: Hooks, script_dir: Path) -> None:
    program = script_dir / "program"
    program.write_bytes(Path("/usr/bin/cat").read_bytes())
    program.chmod(0o755)
    hooks.run()
    assert json.loads(hooks.output())["process"]["pid"] == 4242


def test_a_swapped_file_does_not_run(
    hooks: Hooks, write_script: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between check and exec the name gets another file; the checked one runs."""
    path = write_script("hook", "#!/bin/sh\necho good\n")

    def open_then_swap(path: Path) -> int:
        fd = open_script(path)
        path.unlink()
        write_script("hook", "#!/bin/sh\necho evil\n")
        return fd

    monkeypatch.setattr(script_module, "open_script", open_then_swap)
    hooks.run()
    assert hooks.output() == "good\n"
    assert path.read_text().endswith("evil\n")


def test_all_scripts_or_the_named_ones(hooks: Hooks, write_script: Write) -> None:
    for name in ("20-b", "10-a"):
        write_script(name, "#!/bin/sh\n")
    hooks.run(names=("20-b", "missing"))
    assert hooks.told.kinds() == ["script-refused", "script-finished"]
    assert hooks.told.notices[1][2]["process"]["name"] == "20-b"
    hooks.told.notices.clear()
    hooks.settings["script_jobs"] = 1
    hooks.run()
    assert [n[2]["process"]["name"] for n in hooks.told.notices] == ["10-a", "20-b"]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("exit 0", 0, "finished"),
        ("exit 3", 3, "exit status 3"),
        ("exit 139", 139, "exit status 139"),
        ("kill -SEGV $$", 139, "SIGSEGV"),
        ("kill -KILL 0", 137, "SIGKILL"),
        ("kill -40 $$", 168, "signal 40"),
    ],
)
def test_how_it_ended_is_told(
    hooks: Hooks, write_script: Write, text: str, code: int, said: str
) -> None:
    write_script("hook", f"#!/bin/sh\n{text}\n")
    hooks.run()
    message, fields = hooks.notice("script-failed" if code else "script-finished")
    assert fields["process"]["exit_code"] == code and said in message
    assert fields["event"]["outcome"] == ("failure" if code else "success")
    assert 0 < fields["event"]["duration"] < 10e9


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo no interpreter\n", "neither a program nor a script"),
        ("", "neither a program nor a script"),
        ("#!/no/such/shell\n", "interpreter .* does not exist"),
        ("#!/etc/passwd\n", "Permission denied"),
    ],
)
def test_what_cannot_be_executed_is_told(
    hooks: Hooks, write_script: Write, text: str, reason: str
) -> None:
    write_script("hook", text)
    hooks.run()
    message, fields = hooks.notice("script-refused")
    assert fields["aegis"]["event_id"].startswith(CONTEXT.run_id)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(message)


@pytest.mark.parametrize("spoil", [lambda p: p.chmod(0o777), lambda p: os.chown(p, 1000, -1)])
def test_an_unsafe_script_is_not_run(
    hooks: Hooks, write_script: Write, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(write_script("hook", f"#!/bin/sh\ntouch {tmp_path}/canary\n"))
    hooks.run()
    hooks.notice("script-refused")
    assert not (tmp_path / "canary").exists()


def test_a_script_that_vanishes_while_it_waits_is_told(
    hooks: Hooks, write_script: Write, script_dir: Path
) -> None:
    write_script("10-first", f"#!/bin/sh\nrm {script_dir}/20-second\n")
    write_script("20-second", "#!/bin/sh\n")
    hooks.settings["script_jobs"] = 1
    hooks.run()
    assert hooks.told.kinds() == ["script-finished", "script-refused"]
    assert "No such file" in hooks.told.notices[1][1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"#!/bin/sh\nsleep 60.125{PID}\n", id="sleeps"),
        pytest.param(f"#!/bin/sh\nkill -STOP $$\nsleep 60.125{PID}\n", id="stops-itself"),
        pytest.param(
            f"#!/bin/sh\ntrap '' TERM INT HUP\nsleep 60.125{PID}\nsleep 60.125{PID}\n", id="traps"
        ),
        pytest.param(f"#!/bin/sh\nsleep 60.125{PID} & sleep 60.125{PID} & wait\n", id="background"),
        pytest.param(f"#!/bin/bash\nset -m\nsleep 60.125{PID} & wait\n", id="job-control"),
        pytest.param(
            f"#!/bin/sh\nsetsid setsid sleep 60.125{PID} &\nsleep 60.125{PID}\n", id="setsid"
        ),
        pytest.param(f"#!/bin/sh\nwhile :; do sleep 60.125{PID} & sleep 0.01; done\n", id="forks"),
    ],
)
def test_the_limit_ends_all_of_a_script(hooks: Hooks, write_script: Write, text: str) -> None:
    write_script("hook", text)
    hooks.settings["script_timeout"] = 1
    assert 1 <= hooks.run() < 2
    message, fields = hooks.notice("script-timeout")
    assert fields["process"]["exit_code"] == 137 and "limit of 1 s" in message
    assert processes_of(f"60.125{PID}") == []


@pytest.mark.parametrize("how", ["", "setsid ", "setsid setsid nohup "])
def test_what_a_script_leaves_behind_ends_with_it(
    hooks: Hooks, write_script: Write, how: str
) -> None:
    write_script(
        "hook", f"#!/bin/sh\n{how}sleep 61.125{PID} >/dev/null 2>&1 &\nsleep 0.05\necho done\n"
    )
    assert hooks.run() < 5
    assert hooks.output() == "done\n"
    assert processes_of(f"61.125{PID}") == []


def test_a_sibling_of_the_same_event_is_no_stray(hooks: Hooks, write_script: Write) -> None:
    write_script("10-quick", "#!/bin/sh\n")
    write_script("20-slow", "#!/bin/sh\nsetsid sleep 0.5\necho slept\n")
    hooks.run()
    assert [n[2]["aegis"]["output"] for n in hooks.told.notices] == ["", "slept\n"]


def test_output_is_kept_to_four_kibibytes(hooks: Hooks, write_script: Write) -> None:
    write_script("hook", "#!/bin/sh\nprintf 'out\\n\\377'; yes x | head -c 10000 >&2\n")
    hooks.run()
    _, fields = hooks.notice("script-finished")
    assert len(fields["aegis"]["output"]) == 4096
    assert fields["aegis"]["output"].startswith("out\n\udcffx\n")
    assert fields["aegis"]["output_bytes"] == 10005


def test_a_gibibyte_of_output_hurts_nobody(hooks: Hooks, write_script: Write) -> None:
    """It neither fills memory nor keeps the loop from others."""
    write_script("hook", "#!/bin/sh\nhead -c 1G /dev/zero\n")

    async def watch(late: list[float]) -> None:
        while True:
            start = time.monotonic()
            await asyncio.sleep(0.01)
            late.append(time.monotonic() - start - 0.01)

    async def scenario() -> float:
        late: list[float] = []
        watcher = asyncio.create_task(watch(late))
        runner = hooks.runner()
        record = to_ecs(make_event(), CONTEXT)
        runner.submit(record, {}, None)
        await runner.drain()
        watcher.cancel()
        return max(late)

    def run() -> float:
        hooks.told.notices.clear()
        latest = asyncio.run(scenario())
        _, fields = hooks.notice("script-finished")
        assert fields["aegis"]["output_bytes"] == 2**30
        return latest

    assert quickest(run, 0.5) < 0.5


def test_two_mebibytes_on_stdin_need_no_reader(hooks: Hooks, write_script: Write) -> None:
    write_script("10-ignores", "#!/bin/sh\nexit 0\n")
    write_script("20-counts", "#!/bin/sh\nwc -c\n")
    hooks.run(argv=("x" * 2**21,))
    outputs = [notice[2]["aegis"]["output"] for notice in hooks.told.notices]
    assert any(int(output or 0) > 2**22 for output in outputs)  # command_line and args


def test_at_most_script_jobs_run_at_once(hooks: Hooks, write_script: Write, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_script(
            name,
            f"#!/bin/sh\ntouch {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.1; rm {tmp_path}/$$\n",
        )
    hooks.settings["script_jobs"] = 4
    hooks.run(events=6)
    counts = [int(notice[2]["aegis"]["output"]) for notice in hooks.told.notices]
    assert len(counts) == 18 and 2 <= max(counts) <= 4


def test_a_script_that_hangs_does_not_hold_up_another(hooks: Hooks, write_script: Write) -> None:
    write_script("10-hangs", f"#!/bin/sh\nexec sleep 62.125{PID}\n")
    write_script("20-quick", "#!/bin/sh\n")
    hooks.settings["script_timeout"] = 2

    async def scenario() -> float:
        done: list[float] = []

        def tell(kind: str, message: str, fields: Any) -> None:
            if kind == "script-finished":
                done.append(time.monotonic() - start)

        runner = ScriptRunner(Settings(**hooks.settings), tell, Runs(hooks.home))
        start = time.monotonic()
        for _ in range(10):  # as many as could take every place
            runner.submit(to_ecs(make_event(), CONTEXT), {}, ("10-hangs",))
        for _ in range(10):
            runner.submit(to_ecs(make_event(), CONTEXT), {}, None)
        while len(done) < 10:
            await asyncio.sleep(0.01)
        await runner.close()
        return max(done)

    def run() -> float:
        took = asyncio.run(asyncio.wait_for(scenario(), HUNG_S))
        assert processes_of(f"62.125{PID}") == []
        return took

    assert quickest(run, 1.5) < 1.5


def test_what_the_queue_cannot_hold_is_one_digest(hooks: Hooks, write_script: Write) -> None:
    write_script("hook", "#!/bin/sh\n")
    hooks.settings |= {"script_jobs": 2, "script_queue": 5}
    hooks.run(events=100)
    kinds = hooks.told.kinds()
    assert kinds.count("scripts-dropped") == 1
    ran = kinds.count("script-finished")
    [dropped] = [n[2]["aegis"]["dropped"] for n in hooks.told.notices if n[0] == "scripts-dropped"]
    assert ran + dropped == 100 and 5 <= ran <= 7


def test_a_queue_that_stays_full_is_told_in_time(
    hooks: Hooks, write_script: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_module, "DIGEST_S", 0.2)
    write_script("hook", "#!/bin/sh\nsleep 1\n")
    hooks.settings |= {"script_jobs": 1, "script_queue": 1}
    hooks.run(events=4)
    assert hooks.told.kinds()[0] == "scripts-dropped"
    assert hooks.told.kinds().count("scripts-dropped") == 1


def test_close_kills_what_runs_and_counts_what_waits(hooks: Hooks, write_script: Write) -> None:
    write_script("hook", f"#!/bin/sh\nsetsid sleep 63.125{PID}\n")
    hooks.settings["script_jobs"] = 2

    async def scenario() -> float:
        runner = hooks.runner()
        for _ in range(5):
            event = make_event()
            record = to_ecs(event, CONTEXT)
            runner.submit(record, script_env(event, record), None)
        await asyncio.sleep(0.2)
        start = time.monotonic()
        await runner.close()
        return time.monotonic() - start

    assert asyncio.run(scenario()) < 3
    assert hooks.notice("scripts-dropped")[1]["aegis"] == {"dropped": 4}
    assert processes_of(f"63.125{PID}") == []


@pytest.mark.parametrize("directory", ["missing", "not-a-directory"])
def test_no_script_directory_is_no_scripts(hooks: Hooks, directory: str) -> None:
    Path(hooks.settings["script_dirs"][0], "not-a-directory").write_text("")
    hooks.settings["script_dirs"] = (f"{hooks.settings['script_dirs'][0]}/{directory}",)
    hooks.run()
    assert hooks.told.notices == []


def test_scripts_that_all_hang_leave_a_place(hooks: Hooks, write_script: Write) -> None:
    """Once they ran into their limit, as many different ones as there are places."""
    for name in ("1", "2", "3", "4"):
        write_script(name, f"#!/bin/sh\nexec sleep 65.125{PID}\n")
    write_script("quick", "#!/bin/sh\n")
    hanging = ("1", "2", "3", "4")
    hooks.settings |= {"script_timeout": 1, "script_jobs": 4}

    async def scenario() -> None:
        runner = hooks.runner()
        runner.submit(to_ecs(make_event(), CONTEXT), {}, hanging)
        await runner.drain()
        runner.settings = Settings(**hooks.settings | {"script_timeout": 30})
        for _ in range(5):
            runner.submit(to_ecs(make_event(), CONTEXT), {}, hanging)
        runner.submit(to_ecs(make_event(), CONTEXT), {}, ("quick",))
        while "script-finished" not in hooks.told.kinds():
            await asyncio.sleep(0.01)
        assert hooks.told.kinds() == ["script-timeout"] * 4 + ["script-finished"]
        await runner.close()

    asyncio.run(asyncio.wait_for(scenario(), HUNG_S))
    assert processes_of(f"65.125{PID}") == []
