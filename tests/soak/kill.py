# SPDX-License-Identifier: Apache-2.0
"""The agent is killed at random moments: nobody who connects notices.

The long run also holds how soon the next agent is ready, and how much was tried meanwhile.

Of ten kills three come inside a reload and one inside the first load; before that one
everything is unloaded, so that all which is denied may succeed until "ready".
"""

import os
import random
import signal
import statistics
import time

from tests.soak.scene import Prober, Result, Run, Scene, SoakError

LONG, SHORT = 1000, 20
READY_S = 0.3
DENIED_A_SECOND = 2000  # attempts of the prober, so that a lapse has no room


class _Kills:
    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._random = random.Random(seed)  # noqa: S311
        self.starts: list[float] = []
        self.load_s, self.reload_s = 0.5, 0.05

    def start(self) -> Run:
        run = self._scene.run()
        self.starts.append(run.wait())
        return run

    def kill_within(self, run: Run, seconds: float) -> None:
        time.sleep(self._random.uniform(0, seconds))
        run.end()

    def in_reload(self, run: Run) -> None:
        run.process.send_signal(signal.SIGHUP)
        self.kill_within(run, 1.1 * self.reload_s)

    def in_start(self) -> None:
        """Somewhere on the way to "ready", or just after."""
        self.kill_within(self._scene.run(), 1.2 * statistics.median(self.starts))


def run(count: int, seed: int) -> Result:
    """*count* kills."""
    first, inside = count // 10, 3 * count // 10
    with Scene() as scene:
        kills = _Kills(scene, seed)
        lapses = _kill_first_loads(scene, kills, first)
        scene.unload()
        scene.history.unlink(missing_ok=True)
        running = scene.run()
        running.wait()
        prober = scene.prober()
        kills.reload_s = statistics.median(running.reload() for _ in range(3))
        for number in range(count - first):
            if number < inside:
                kills.in_reload(running)
            elif number % 3 == 0:
                running.end()
                kills.in_start()
            else:
                kills.kill_within(running, 0.1)
            running = kills.start()
        what = f"{count} kills (seed {seed})"
        return _judge(scene, kills, prober, lapses, what, is_long=count >= LONG)


def _kill_first_loads(scene: Scene, kills: _Kills, count: int) -> int:
    """How many wrong results there were: what was allowed and failed, or denied after "ready"."""
    prober, wrong = scene.prober(), 0
    for _ in range(count):
        kills.kill_within(scene.run(), kills.load_s)
        wrong += prober.tally()["stopped"]
        running = scene.run()
        running.wait()
        wrong += prober.tally()["stopped"]
        time.sleep(0.05)
        running.end()
        after = prober.tally()
        wrong += after["passed"] + after["stopped"]
        scene.unload()
    prober.close()
    return wrong


def missed(ready_s: float, denied_a_second: float) -> str:
    """Which bounds were; empty: none. What else the machine does is said, since both need it."""
    wrong = []
    if ready_s > READY_S:
        wrong.append(f"ready {ready_s:.3f} s at the median, not {READY_S}")
    if denied_a_second < DENIED_A_SECOND:
        wrong.append(f"{denied_a_second:,.0f} denied a second, not {DENIED_A_SECOND:,}")
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"MISSED (load {load}): {', '.join(wrong)}; " if wrong else ""


def _judge(
    scene: Scene, kills: _Kills, prober: Prober, lapses: int, what: str, *, is_long: bool
) -> Result:
    prober.close()
    counters, total = scene.balanced(), prober.total
    if (counters["blocked"], counters["allowed"]) != (total["refused"], total["out"]):
        raise SoakError(f"not {total} are in {counters}")
    taken, adopted = scene.in_history(), sum(1 for _ in scene.records("adopted"))
    if taken != counters["decided"] - counters["history_lost"] or not adopted:
        raise SoakError(f"history has {taken} of {counters}; {adopted} agents said what they found")
    median = statistics.median(kills.starts)
    wrong = lapses + total["passed"] + total["stopped"]
    tried = (total["refused"] + total["passed"]) / max(total["seconds"], 1e-9)
    bounds = missed(median, tried) if is_long else ""
    line = (
        f"kill: {bounds}{what}, {prober.said()}; {lapses} wrong around first loads; "
        f"ready {median:.3f} s at the median (aim {READY_S}), {max(kills.starts):.3f} s at most; "
        f"the kernel counted each, history has all {taken:,} decisions"
    )
    return Result(wrong == 0 and not bounds, line)
