# SPDX-License-Identifier: Apache-2.0
"""Kills long after their event, while an unprivileged user wraps the PID space.

``python -m tests.kill_safety 10000``: as root, in a PID namespace of its own.
Half of the offenders have ended when their kill comes, and their numbers belong
to innocents that run the very same file. Nobody but the living offenders may die.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegis.actions.kill import KillStatus
from aegis.events.event import Event
from tests.actions.living import event_of, kill_process
from tests.pace import HUNG_S

ROOT = Path(__file__).parents[1]
SLEEP = "/usr/bin/sleep"
NOBODY = 65534
OFFENDER = 65533
LIVING = 250  # offenders waiting for their kill at once
FIRST_PID = 300  # no namespace gives out lower ones a second time
PID_MAX = Path("/proc/sys/kernel/pid_max")
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@dataclass(frozen=True)
class Offence:
    """One offender; *process* is None when it has ended by the time of its kill."""

    due: float
    event: Event
    process: subprocess.Popen[bytes] | None


def run(kills: int, delay: float, living: int = LIVING) -> dict[str, Any]:
    """Return what became of *kills* kills, each *delay* seconds late; see ``_report``."""
    command = [sys.executable, "-m", "tests.kill_safety", str(kills), str(delay), str(living)]
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *command]
    before = PID_MAX.read_text()
    done = subprocess.run(
        [*inside, "--inside"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert PID_MAX.read_text() == before
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _run_inside(kills: int, delay: float, living: int) -> dict[str, Any]:
    innocents = subprocess.Popen(
        [sys.executable, "-c", INNOCENTS_CODE, str(living * 3 // 2), str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )
    assert innocents.stdin and innocents.stdout
    innocents.stdout.readline()
    waiting: deque[Offence] = deque()
    results: Counter[str] = Counter()
    for number in range(kills):
        while len(waiting) >= 2 * living or (waiting and waiting[0].due <= time.monotonic()):
            _kill(waiting.popleft(), results)
        waiting.append(_offend(delay, living=number % 2 == 0))
        _wrap(living)
    while waiting:
        _kill(waiting.popleft(), results)
        _wrap(living)
    said, _ = innocents.communicate("")
    return {**results, **json.loads(said)}


def _offend(delay: float, *, living: bool) -> Offence:
    while True:
        with suppress(BlockingIOError):  # every number is taken
            process = subprocess.Popen([SLEEP, "600"], user=OFFENDER, group=OFFENDER)
            break
        time.sleep(0.01)
    event = event_of(process.pid)
    if not living:
        process.kill()
        process.wait()
    return Offence(time.monotonic() + delay, event, process if living else None)


def _kill(offence: Offence, results: Counter[str]) -> None:
    time.sleep(max(0.0, offence.due - time.monotonic()))
    status = kill_process(offence.event).status
    if offence.process is None:
        results["recycled" if status is KillStatus.OTHER else f"ended-{status}"] += 1
        return
    with suppress(subprocess.TimeoutExpired):
        offence.process.wait(HUNG_S)
    dead = offence.process.returncode == -signal.SIGKILL
    results["killed" if dead and status is KillStatus.KILLED else "survived"] += 1
    offence.process.kill()
    offence.process.wait()


def _wrap(living: int) -> None:
    """As if there were few numbers: a namespace's own pid_max came only with v6.14."""
    if int(LAST_PID.read_text()) > FIRST_PID + living * 16 // 5:
        LAST_PID.write_text(str(FIRST_PID))


# Forks as fast as it can; every few forks one child stays a while, as the offenders' file.
INNOCENTS_CODE = """
import json, os, select, sys
most, seconds = int(sys.argv[1]), float(sys.argv[2]) + 1
alive, told = set(), {"innocents": 0, "innocents_dead": 0, "forks": 0}

def reap(flags):
    pid, status = os.waitpid(-1, flags)
    if pid in alive and os.waitstatus_to_exitcode(status):
        told["innocents_dead"] += 1
    alive.discard(pid)
    return pid

print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    stays = len(alive) < most and told["forks"] % 3 == 0
    try:
        pid = os.fork()
    except BlockingIOError:  # every number is taken
        reap(0)
        continue
    if pid == 0:
        if stays:
            os.execv("/usr/bin/sleep", ["sleep", str(seconds)])
        os._exit(0)
    told["forks"] += 1
    if stays:
        alive.add(pid)
        told["innocents"] += 1
        while reap(os.WNOHANG):
            pass
    else:
        while reap(0) != pid:
            pass
while alive:
    reap(0)
print(json.dumps(told))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int)
    parser.add_argument("delay", type=float, nargs="?", default=2.0)
    parser.add_argument("living", type=int, nargs="?", default=LIVING)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(_run_inside(args.kills, args.delay, args.living)))
        return
    begun = time.monotonic()
    report = run(args.kills, args.delay, args.living)
    print(json.dumps(report), f"{time.monotonic() - begun:.0f} s")
    sys.exit(bool(report["innocents_dead"] or report.get("survived", 0)))


if __name__ == "__main__":
    main()
