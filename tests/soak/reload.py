# SPDX-License-Identifier: Apache-2.0
"""Reloads under the fire of 64 threads: each verdict is of the old generation or the new one.

The lane of the agent without its log, as in ``tests/kernel/test_reload.py``: every record is
judged as it comes.
"""

import json
import threading
from collections import Counter
from contextlib import closing

from aegis.bpf.kernel import Kernel
from tests.kernel.test_reload import BOTH, TOLD, Reader, Reloads
from tests.soak.scene import Result, Scene, SoakError

LONG, SHORT = 10_000, 40
_THREADS = 32  # at each of two ports
_BURST = 32 * 500


class _Flood:
    """Connects to one port, again and again, in the background."""

    def __init__(self, scene: Scene, port: int) -> None:
        self._scene, self._port = scene, port
        self._program = scene.workshop.install("reloaded")
        self._stop = threading.Event()
        self.total: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._last)
        self._thread.start()

    def _last(self) -> None:
        words = ("flood", "127.0.0.1", str(self._port), str(_BURST), str(_THREADS))
        while not self._stop.is_set():
            outcome = self._scene.programs.run(self._program, *words, patience=120)
            answer = json.loads(outcome.stdout)
            self.total.update({key: answer[key] for key in ("allowed", "refused", "failed")})

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def run(count: int, seed: int) -> Result:
    """*count* reloads; there is nothing random in it."""
    with Scene() as scene:
        kernel = Kernel(scene.place)
        kernel.start()
        try:
            reloads = Reloads(kernel, scene.folder)
            reloads.reload()
            kernel.attach()
            with (  # the reader ends last: until then all must be in the ring
                closing(Reader(reloads)) as reader,
                closing(_Flood(scene, BOTH)) as both,
                closing(_Flood(scene, TOLD)) as told,
            ):
                for _ in range(count):
                    reloads.reload()
            return _judge(kernel.counters(), reader, both.total, told.total, count)
        finally:
            kernel.close()


def _judge(
    counters: dict[str, int], reader: Reader, both: Counter[str], told: Counter[str], count: int
) -> Result:
    """What both policies allow is never refused; the rest is counted and told."""
    events = told["refused"] + told["allowed"]
    laws = {
        "events that are not of their generation, or that not of its time": len(reader.wrong),
        "allowed that failed": both["refused"] + both["failed"] + told["failed"],
        "blocked and not refused": abs(told["refused"] - counters["blocked"]),
        "allowed and not quiet": abs(both["allowed"] - counters["quiet"]),
        "emitted and not read": abs(sum(reader.seen.values()) - counters["emitted"]),
        "unaccounted events": abs(counters["emitted"] + counters["lost"] - events),
    }
    broken = {what: number for what, number in laws.items() if number}
    if broken or len(reader.generations) < 3:
        raise SoakError(f"{broken} {reader.wrong[:3]} {len(reader.generations)} generations")
    line = (
        f"reload: {count:,} reloads under {2 * _THREADS} threads, {events + both['allowed']:,} "
        f"verdicts ({told['refused']:,} blocked), events of {len(reader.generations):,} "
        f"generations read: {counters['emitted']:,}, lost and counted: {counters['lost']:,}; "
        "0 of another generation than the one in force or, while it is exchanged, the one before; "
        "0 unaccounted"
    )
    return Result(ok=True, line=line)
