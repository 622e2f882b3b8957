# SPDX-License-Identifier: Apache-2.0
"""The host is suspended to memory and woken: verdicts, detent, trials, scripts, the agent.

``aegis-test.sleep`` seconds later it is woken from outside (``vmtests.boot``).
"""

import json
import shutil
import time
from collections.abc import Callable, Container
from datetime import datetime
from pathlib import Path
from typing import Any

from probe import try_connect
from tour import LOG, POLICY, SCRIPTS, Watched, knock, main_pid, run, until

MEM_SLEEP = Path("/sys/power/mem_sleep")
LONG_S = 3600
SCRIPT_S = 30  # shorter than the host sleeps
PROOF_S = 30  # WatchdogSec
MORE = """
[[app]]
path = "/usr/local/bin/short-prober"
ports = []
detent = {short}
actions = ["log", "block"]

[[app]]
path = "/usr/local/bin/long-prober"
ports = []
detent = {long}
actions = ["log", "block"]

[[app]]
path = "/usr/local/bin/script-prober"
ports = []
actions = ["log", "block", "script:sleeper"]
"""
SCRIPT = "#!/bin/sh\necho begun >/run/sleeper\nexec sleep 10000\n"


def asked_s() -> int:
    """How long the host sleeps; what is shorter ends meanwhile."""
    words = Path("/proc/cmdline").read_text().split()
    (word,) = [word for word in words if word.startswith("aegis-test.sleep=")]
    return int(word.partition("=")[2])


def clocks() -> tuple[float, float, float]:
    names = (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME, time.CLOCK_REALTIME)
    return tuple(time.clock_gettime(name) for name in names)  # type: ignore[return-value]


def sleep() -> dict[str, Any]:
    """As ``systemctl suspend`` does it: what each clock saw of it."""
    before = clocks()
    said = run("systemctl", "start", "systemd-suspend.service")
    after = clocks()
    saw = [round(new - old, 1) for new, old in zip(after, before, strict=True)]
    slept = dict(zip(("monotonic", "boottime", "realtime"), saw, strict=True))
    return {**slept, "said": said, "asleep": round(saw[1] - saw[0], 1)}


def not_asleep(slept: dict[str, Any]) -> list[str]:
    """The clocks must really differ, else nothing is shown."""
    return [] if slept["asleep"] >= asked_s() - 5 else [f"it did not sleep: {slept}"]


def reports(program: str) -> list[dict[str, Any]]:
    """The events of *program* in the log."""
    text = LOG.read_text() if LOG.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if f"/{program}" in line]
    return [line for line in lines if "destination" in line]


def status() -> dict[str, Any]:
    text = run("aegis", "status", "--json").partition(": ")[2]
    return dict(json.loads(text)) if text.startswith("{") else {"problems": [text]}


def notices() -> list[str]:
    """What the agent told of itself that is bad news."""
    bad = ("tampered", "restored", "self-test-failed", "self-test-passed", "gap")
    lines = [json.loads(line).get("aegis", {}) for line in LOG.read_text().splitlines()]
    return [str(line) for line in lines if line.get("notice") in bad]


def awake() -> tuple[list[str], dict[str, str]]:
    """What the first second shows: who is refused is, who is allowed is, nothing is amiss."""
    got = {"denied": knock(), "allowed": try_connect("127.0.0.1", 8086)}
    state = status()
    wrong = [] if got == {"denied": "denied", "allowed": "open"} else [f"verdicts {got}"]
    return wrong + [f"status: {problem}" for problem in state["problems"]], got


def detent() -> dict[str, object]:
    """It lasts as long as the clock on the wall says, asleep or not; verdicts do not wait."""
    programs = ("short-prober", "long-prober")
    got = [knock(name) for name in programs]
    first = until(lambda: all(len(reports(name)) == 1 for name in programs))
    got += [knock(name) for name in programs]
    watched = Watched()
    time.sleep(2)
    slept = sleep()
    wrong, _ = awake()
    meanwhile = watched.got()
    woken = time.time()
    got += [knock(name) for name in programs]
    knocked = time.time()
    told = until(lambda: len(reports("short-prober")) == 2, 60)
    counts = {name: len(reports(name)) for name in programs}
    wrong += not_asleep(slept)
    wrong += [] if got == ["denied"] * 6 else [f"verdicts {got}"]
    wrong += [] if first and told and counts["long-prober"] == 1 else [f"reports {counts}"]
    wrong += [] if set(meanwhile) == {"denied"} else [f"around it {meanwhile}"]
    at = datetime.fromisoformat(reports("short-prober")[-1]["@timestamp"]).timestamp()
    late = max(woken - at, at - knocked)  # below 0: between the two, however long that is
    wrong += [] if late < 10 else [f"an event's time is wrong by {late:.0f} s"]
    return {"slept": slept, "reports": counts, "meanwhile": meanwhile, "wrong": wrong}


def on_trial(seconds: int) -> tuple[str, str]:
    """A policy with port 9 allowed: what apply said, and what a connection got."""
    proposed = Path("/root/proposed.toml")
    proposed.write_text(POLICY.read_text().replace('ports = ["8086"]', 'ports = ["8086", "9"]'))
    proposed.chmod(0o644)
    said = run("aegis", "apply", "--confirm", str(seconds), "-c", str(proposed), "--i-know")
    return said, knock()


def trial_over() -> dict[str, object]:
    """A trial whose time ends while the host sleeps is over when it wakes: at the first connect."""
    said, before = on_trial(asked_s() - 15)
    slept = sleep()
    after = knock()
    told = until(lambda: "taken back" in run("journalctl", "-b", "-u", "aegis", "-o", "cat"), 30)
    left = status().get("trial_s")
    wrong = not_asleep(slept)
    wrong += [] if (before, after) == ("open", "denied") else [f"{before}, then {after}; {said}"]
    wrong += [] if told else ["nobody said that it is taken back"]
    wrong += [] if left is None else [f"status still has a trial: {left}"]
    return {"slept": slept, "applied": said, "got": [before, after], "wrong": wrong}


def trial_lasts() -> dict[str, object]:
    """One whose time is not over goes on, with so much less of it."""
    said, before = on_trial(LONG_S)
    slept = sleep()
    after, left = knock(), status().get("trial_s")
    back = run("aegis", "confirm", "--no")
    then = knock()
    wrong = not_asleep(slept)
    got = (before, after, then)
    wrong += [] if got == ("open", "open", "denied") else [f"{got}; {said}; {back}"]
    wrong += [] if left and left <= LONG_S - slept["asleep"] else [f"{left} s left"]
    return {"slept": slept, "left_s": left, "got": got, "wrong": wrong}


def script() -> dict[str, object]:
    """A script's time is that in which it can run: the host's sleep does not end it."""
    begun = Path("/run/sleeper")
    begun.unlink(missing_ok=True)
    got = knock("script-prober")
    started, since = until(begun.exists, 60), clocks()[0]
    slept = sleep()
    ended = until(lambda: "killed at the limit" in LOG.read_text(), 3 * SCRIPT_S)
    awake_s = round(clocks()[0] - since, 1)
    wrong = not_asleep(slept)
    wrong += [] if got == "denied" and started and ended else [f"{got} {started} {ended}"]
    # Found by looking for its first line, and its end in the log: each a little late.
    wrong += [] if SCRIPT_S - 5 < awake_s < SCRIPT_S + 20 else [f"ended after {awake_s} s"]
    return {"slept": slept, "awake_s": awake_s, "wrong": wrong}


def agent(pid: str) -> dict[str, object]:
    """The same as before, proven, nothing unaccounted for; systemd's watchdog let it be."""
    state = status()
    counters: dict[str, int] = state.get("counters") or {}
    sums = sum(counters[name] for name in ("emitted", "suppressed", "lost", "quiet"))
    proven_s = (state.get("agent") or {}).get("proven_s")
    wrong = [f"status: {problem}" for problem in state["problems"]]
    wrong += [] if main_pid() == pid else ["another agent"]
    wrong += [] if sums == counters["decided"] else [f"{counters['decided']} decided, {sums} told"]
    wrong += [] if proven_s is not None and proven_s < PROOF_S else [f"proven {proven_s} s ago"]
    wrong += notices()
    return {"counters": counters, "proven_s": proven_s, "wrong": wrong}


def prepare() -> dict[str, object]:
    """The programs, the script and the policy of the steps."""
    for name in ("short-prober", "long-prober", "script-prober"):
        shutil.copy("/usr/local/bin/prober", f"/usr/local/bin/{name}")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    sleeper = SCRIPTS / "sleeper"
    sleeper.write_text(SCRIPT)
    sleeper.chmod(0o755)
    limit = f"detent = 0\nscript_timeout = {SCRIPT_S}\n"
    text = POLICY.read_text().replace("detent = 0\n", limit, 1)
    POLICY.write_text(text + MORE.format(short=asked_s() - 15, long=LONG_S))
    begin = {word: run("aegis", word) for word in ("check", "reload")}
    return {"states": MEM_SLEEP.read_text(), **begin}


def suspend(only: Container[str] = ()) -> dict[str, object]:
    """Each step, or *only* these."""
    told, pid = prepare(), main_pid()
    steps: dict[str, Callable[[], dict[str, object]]] = {
        "detent": detent, "trial over": trial_over, "trial lasts": trial_lasts,
        "script": script, "agent": lambda: agent(pid),
    }  # fmt: skip
    for name, step in steps.items():
        if only and name not in only:
            continue
        try:
            told[name] = step()
        except Exception as error:  # the next step may hold all the same
            told[name] = {"wrong": [repr(error)]}
        with Path("/dev/ttyS1").open("a") as port:
            port.write(f"{name} {json.dumps(told[name])}\n")
    told["said"] = run("journalctl", "-b", "-n", "60", "-o", "short-monotonic", "--no-pager")
    return told


def nap() -> dict[str, object]:
    """The short form: one sleep."""
    return suspend(("detent", "agent"))
