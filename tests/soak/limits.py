# SPDX-License-Identifier: Apache-2.0
"""Little memory, out-of-memory kills, sixteen descriptors, a clock that is wrong by years."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.pace import HUNG_S
from tests.soak.memory import Memory, memory_cgroup
from tests.soak.pause import Flood
from tests.soak.scene import DENIED, FLOODED, FLOODER, PROBER, Result, Run, Scene, SoakError

LONG, SHORT = 20, 2  # out-of-memory kills; half as many seconds of flood
LIMIT = 64 << 20
HOG = 56 << 20
_YEAR = 365 * 86400
CLOCKS = {"ten years on": 10 * _YEAR, "ten years back": -10 * _YEAR, "1970": None}
# The service: what its reactions take is in units, with limits of their own.
_AS_SERVED = ("--units",)
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


def run(count: int, seed: int) -> Result:
    """*count* out-of-memory kills; there is nothing random in it."""
    told = []
    with Scene() as scene:
        with memory_cgroup(LIMIT) as memory:
            told.append(_memory(scene, memory, count))
            scene.unload()
        told += [_descriptors(scene), _clock(scene)]
    return Result(ok=True, line="limits: " + "; ".join(told))


def _memory(scene: Scene, memory: Memory, count: int) -> str:
    enter = ("/bin/sh", "-c", _ENTER, str(memory.place))
    running = scene.run(*enter, flags=_AS_SERVED)
    running.wait()
    prober, flood = scene.prober(), Flood(scene)
    flood.last(count / 2)
    if running.process.poll() is not None:
        raise SoakError(f"the agent ended in {LIMIT >> 20} MiB: {running.said}")
    peak = memory.peak >> 20
    for _ in range(count):
        _exhaust(memory, running)
        running = scene.run(*enter, flags=_AS_SERVED)
        running.wait()
    running.end(signal.SIGTERM)
    prober.close()
    kills = memory.kills
    wrong = prober.total["passed"] + prober.total["stopped"] + flood.wrong
    if wrong or kills < count:
        raise SoakError(f"{prober.said()}, {flood.wrong} of the flood were wrong; {kills} kills")
    return (
        f"{count / 2:.0f} s of flood in {LIMIT >> 20} MiB ({flood.refused:,} events; peak {peak} "
        f"MiB), {count} agents killed for memory (the kernel counts {kills} kills), {prober.said()}"
    )


def _exhaust(memory: Memory, running: Run) -> None:
    """Somebody whom the kernel may not kill takes the memory: the agent is killed for it."""
    code = f"import sys; taken = bytearray({HOG}); taken[::4096] = b'x' * len(taken[::4096]); "
    code += "sys.stdin.read()"
    hog = subprocess.Popen(
        ["/bin/sh", "-c", "echo -1000 > /proc/self/oom_score_adj; " + _ENTER, str(memory.place),
         sys.executable, "-c", code],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        code_of_agent = running.process.wait(HUNG_S)
    except subprocess.TimeoutExpired:
        raise SoakError("the kernel did not kill the agent") from None
    finally:
        hog.kill()
        hog.communicate()
    if code_of_agent != -signal.SIGKILL:
        raise SoakError(f"out of memory, the agent ended with {code_of_agent}: {running.said}")


def _descriptors(scene: Scene) -> str:
    """It starts or says why not; what is in force is not touched, nor half of it put there."""
    outcomes = []
    for adopted in (False, True):
        if adopted:
            before = scene.run()
            before.wait()
            before.end(signal.SIGTERM)
        limited = scene.run("prlimit", "--nofile=16")
        end = limited.process.communicate(timeout=HUNG_S)[1]
        talk = scene.programs.talk(scene.workshop.install(PROBER))
        refused = not talk.reaches("udp-connect", "127.0.0.1", DENIED)
        clear = "aegis: " in end and "Traceback" not in end
        if not clear or limited.process.returncode != 1 or refused is not adopted:
            raise SoakError(f"16 descriptors: {limited.process.returncode} {refused} {end}")
        outcomes.append(end.strip().splitlines()[-1])
    scene.unload()
    return f"16 descriptors: no start, what was in force stays ({outcomes[0]!r})"


def _clock(scene: Scene) -> str:
    shim, clock = scene.folder / "clock.so", scene.folder / "clock"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", shim, source], check=True)
    clock.write_text("0")
    for path in scene.folder.glob("log.jsonl*"):
        path.unlink()
    running = scene.run("/usr/bin/env", f"LD_PRELOAD={shim}", f"SOAK_CLOCK={clock}")
    running.wait()
    prober = scene.prober()
    time.sleep(1.2)
    for offset in CLOCKS.values():
        clock.write_text(str(-int(time.time()) + 3600 if offset is None else offset))
        _flood_some(scene)
        running.reload()
        time.sleep(1.2)
    prober.close()
    scene.balanced()
    code = running.end(signal.SIGTERM)
    said = "\n".join(running.said)
    if code or "Traceback" in said:
        raise SoakError(f"a wrong clock: the agent ended with {code}: {said}")
    years = {record["@timestamp"][:4] for record in scene.records()}
    reported = [r for r in scene.records() if r["process"]["name"] == PROBER]
    per_process = {(r["process"]["pid"], r["network"]["transport"]) for r in reported}
    if len(years) < 3 or prober.total["passed"] or prober.total["stopped"]:
        raise SoakError(f"years {years}, {prober.said()}")
    if len(reported) > 2 * len(per_process):  # detent is a day: a clock that jumps is none
        raise SoakError(f"{len(reported)} reports of {len(per_process)} repeated flows")
    return f"clock moved to {', '.join(CLOCKS)}: verdicts, detent and counters hold"


def _flood_some(scene: Scene) -> None:
    words = ("flood", "127.0.0.1", str(FLOODED), "200", "2")
    scene.programs.run(scene.workshop.install(FLOODER), *words)
