# SPDX-License-Identifier: Apache-2.0
"""The host sleeps (to idle) and wakes by its clock: verdicts, detent, timeouts and trials."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tour import LOG, POLICY, SCRIPTS, knock, main_pid, run, until

STATE = Path("/sys/power/state")
ALARM = Path("/sys/class/rtc/rtc0/wakealarm")
SLEEP_S, DETENT_S, TRIAL_S, SCRIPT_S = 90, 60, 60, 40
MORE = f"""
[[app]]
path = "/usr/local/bin/slept-prober"
ports = []
detent = {DETENT_S}
actions = ["log", "block"]

[[app]]
path = "/usr/local/bin/script-prober"
ports = []
actions = ["log", "block", "script:sleeper"]
"""
SCRIPT = "#!/bin/sh\necho begun >/run/sleeper\nexec sleep 10000\n"


def clocks() -> tuple[float, float]:
    return time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)


def sleep(seconds: int = SLEEP_S) -> dict[str, float]:
    """How much of it CLOCK_MONOTONIC and CLOCK_BOOTTIME saw."""
    ALARM.write_text("0")
    ALARM.write_text(f"+{seconds}")
    before = clocks()
    STATE.write_text("freeze")
    after = clocks()
    return {"monotonic": round(after[0] - before[0], 1), "boottime": round(after[1] - before[1], 1)}


def reports(port: int) -> int:
    text = LOG.read_text().replace(" ", "") if LOG.exists() else ""
    return sum(f'"port":{port}' in line and '"slept-prober"' in line for line in text.splitlines())


def status() -> dict[str, Any]:
    text = run("aegis", "status", "--json").partition(": ")[2]
    return dict(json.loads(text)) if text.startswith("{") else {"problems": [text]}


def detent() -> dict[str, object]:
    """It lasts as long as the clock on the wall says, asleep or not; enforcement does not wait."""
    got = [knock("slept-prober", 2001)]
    first = until(lambda: reports(2001) == 1)
    got.append(knock("slept-prober", 2001))
    slept = sleep()
    got.append(knock("slept-prober", 2001))
    again = until(lambda: reports(2001) == 2, 20)
    wrong = [] if got == ["denied"] * 3 else [f"verdicts {got}"]
    wrong += [] if first and again else [f"{reports(2001)} reports, not two"]
    if slept["boottime"] < SLEEP_S - 5 or slept["monotonic"] > slept["boottime"] / 2:
        wrong.append("it did not sleep")
    return {"slept": slept, "got": got, "wrong": wrong}


def trial() -> dict[str, object]:
    """A trial whose time ends while the host sleeps is over when it wakes."""
    proposed = Path("/root/proposed.toml")
    proposed.write_text(POLICY.read_text().replace('ports = ["8086"]', 'ports = ["8086", "9"]'))
    proposed.chmod(0o644)
    tried = run("aegis", "apply", "--confirm", str(TRIAL_S), "-c", str(proposed), "--i-know")
    got = [knock("prober", 9)]
    slept = sleep()
    got.append(knock("prober", 9))
    told = until(lambda: "taken back" in run("journalctl", "-b", "-u", "aegis", "-o", "cat"), 30)
    wrong = [] if got == ["open", "denied"] else [f"verdicts {got}, {tried}"]
    wrong += (
        [] if told and status().get("trial_s") is None else ["nobody said that it is taken back"]
    )
    return {"slept": slept, "applied": tried, "got": got, "wrong": wrong}


def script() -> dict[str, object]:
    """A script's time is that in which it can run."""
    begun = Path("/run/sleeper")
    begun.unlink(missing_ok=True)
    got, before = knock("script-prober", 2003), clocks()[0]
    started = until(begun.exists, 60)
    slept = sleep()
    ended = until(lambda: "killed at the limit" in LOG.read_text(), 3 * SCRIPT_S)
    took = round(clocks()[0] - before, 1)
    wrong = [] if got == "denied" and started and ended else [f"{got} {started} {ended}"]
    wrong += [] if took < 3 * SCRIPT_S else [f"ended after {took} s"]
    return {"slept": slept, "awake_s": took, "wrong": wrong}


def agent(pid: str) -> dict[str, object]:
    """The same as before, proven, nothing unaccounted for; systemd's watchdog let it be."""
    proven = until(lambda: not status()["problems"], 60)
    state = status()
    counters: dict[str, int] = state.get("counters") or {}
    sums = sum(counters[name] for name in ("emitted", "suppressed", "lost", "quiet"))
    wrong = [] if proven else [f"problems: {state['problems']}"]
    wrong += [] if main_pid() == pid else ["another agent"]
    wrong += [] if sums == counters["decided"] else [f"{counters['decided']} decided, {sums} told"]
    return {"counters": counters, "wrong": wrong}


def suspend() -> dict[str, object]:
    for name in ("slept-prober", "script-prober"):
        shutil.copy("/usr/local/bin/prober", f"/usr/local/bin/{name}")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    sleeper = SCRIPTS / "sleeper"
    sleeper.write_text(SCRIPT)
    sleeper.chmod(0o755)
    text = POLICY.read_text().replace(
        "detent = 0\n", f"detent = 0\nscript_timeout = {SCRIPT_S}\n", 1
    )
    POLICY.write_text(text + MORE)
    told: dict[str, object] = {"states": STATE.read_text(), "reload": run("aegis", "reload")}
    pid = main_pid()
    steps: dict[str, Callable[[], dict[str, object]]] = {
        "detent": detent, "trial": trial, "script": script, "agent": lambda: agent(pid),
    }  # fmt: skip
    for name, step in steps.items():
        try:
            told[name] = step()
        except Exception as error:  # the next step may hold all the same
            told[name] = {"wrong": [repr(error)]}
        with Path("/dev/ttyS1").open("a") as port:
            port.write(f"{name} {json.dumps(told[name])}\n")
    told["said"] = run("journalctl", "-b", "-u", "aegis", "-n", "30", "-o", "cat", "--no-pager")
    return told
