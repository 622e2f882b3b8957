# SPDX-License-Identifier: Apache-2.0
"""The agent is stopped for a while at full flood: verdicts stand, and one notice tells the gap."""

import json
import signal
import subprocess
import time
from datetime import datetime

from aegis.bpf.cgroup import instance_name
from tests.kernel.counted import counted
from tests.kernel.settings import PATIENCE
from tests.soak.scene import FLOODED, FLOODER, Result, Scene, SoakError

LONG, SHORT = 30, 3  # seconds
_THREADS = 64
_BURST = 64 * 500


class Flood:
    """Denied connects, each of them an event, as fast as they go."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._program = scene.workshop.install(FLOODER)
        self.refused = self.wrong = 0

    def _start(self) -> "subprocess.Popen[str]":
        words = ("flood", "127.0.0.1", str(FLOODED), str(_BURST), str(_THREADS))
        return self._scene.programs.start(self._program, *words)

    def last(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = json.loads(self._start().communicate(timeout=PATIENCE)[0])
            self.refused += answer["refused"]
            self.wrong += answer["allowed"] + answer["failed"]


def run(count: int, seed: int) -> Result:
    """*count* seconds without the agent; there is nothing random in it."""
    with Scene() as scene:
        running = scene.run()
        running.wait()
        prober, flood = scene.prober(), Flood(scene)
        flooded = time.time()
        flood.last(0.5)
        running.process.send_signal(signal.SIGSTOP)
        stopped = time.time()
        flood.last(count)
        going_on = time.time()
        running.process.send_signal(signal.SIGCONT)
        prober.close()
        _wait_read(scene)
        counters = scene.balanced()
        running.end(signal.SIGTERM)
        if running.process.returncode:
            raise SoakError(f"the agent failed: {running.said}")
        _check_log(scene, counters)
        gap = _only_gap(scene, counters["lost"], (flooded, stopped, going_on))
    wrong = flood.wrong + prober.total["passed"] + prober.total["stopped"]
    line = (
        f"pause: {count} s stopped, {flood.refused:,} denied by {_THREADS} threads, each an event, "
        f"and {prober.said()}; counters balance; {gap}"
    )
    return Result(wrong == 0, line)


def _wait_read(scene: Scene) -> None:
    """Until it has read the ring: at its end it takes two seconds for that at most."""
    deadline = time.monotonic() + PATIENCE
    with counted(instance_name(scene.place)) as kernel:
        while left := kernel.waiting():
            if time.monotonic() > deadline:
                raise SoakError(f"{left} bytes of events are not read")
            time.sleep(0.1)


def _check_log(scene: Scene, counters: dict[str, int]) -> None:
    written = sum(1 for _ in scene.records())
    if written != counters["emitted"]:
        raise SoakError(f"{written} events in the log, {counters['emitted']} were emitted")


def _only_gap(scene: Scene, lost: int, times: tuple[float, float, float]) -> str:
    """*times*: when the flood began, the agent was stopped, and went on."""
    flooded, stopped, going_on = times
    told = list(scene.records("events-lost"))
    if len(told) != 1 or told[0]["aegis"]["lost"] != lost or not lost:
        raise SoakError(f"{lost} lost, told {[record['message'] for record in told]}")
    [record] = told
    begun, end = (
        datetime.fromisoformat(record["event"][key]).timestamp() for key in ("start", "end")
    )
    # To the second: so often the agent looks. Before it is stopped, too, events may be lost.
    if not (flooded - 2.5 <= begun <= stopped + 2 and going_on - 2 <= end <= going_on + 3):
        raise SoakError(f"stopped from {stopped} to {going_on}, told {record['event']}")
    return f"one gap event: {lost:,} lost in {end - begun:.1f} s"
