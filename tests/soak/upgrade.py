# SPDX-License-Identifier: Apache-2.0
"""Back and forth between builds under probers: not one connection sees it.

Three builds: this one; one of the same layout whose programs are others, so that links are
updated; one whose maps have another layout, so that all is loaded beside what there is.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aegis.bpf.cgroup import PINS, instance_name
from tests.kernel.workshop import KEPT
from tests.soak.scene import Result, Scene, SoakError

LONG, SHORT = 100, 4
ROOT = Path(__file__).parents[2]

# Name of a build -> file of kernel/, what stands there, what is to stand there.
BUILDS = {
    "other-programs": (
        ("report.bpf.h", "#define KILL_AGAIN_NS 100000000ULL", "#define KILL_AGAIN_NS 90000000ULL"),
    ),
    "other-layout": (
        (
            "records.h",
            "__u64 value[16];		/* what the counters",
            "__u64 value[24];		/* what the",
        ),
        ("aegis.h", "AEGIS_DETENT_MAX = 16384", "AEGIS_DETENT_MAX = 8192"),
    ),
}


def make_build(name: str) -> Path:
    """A folder whose ``aegis`` is that build; kept until the sources change."""
    digest = hashlib.sha256(repr(BUILDS[name]).encode())
    for path in sorted([*ROOT.glob("kernel/*"), ROOT / "build.py", *ROOT.glob("aegis/**/*.py")]):
        digest.update(path.read_bytes())
    target = KEPT / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    for old in KEPT.glob(f"{name}-*"):
        shutil.rmtree(old)
    fresh = KEPT / f".{name}-{os.getpid()}"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in ("aegis", "kernel"):
        shutil.copytree(ROOT / folder, fresh / folder, ignore=ignored)
    shutil.copy(ROOT / "build.py", fresh)
    for file, old_text, new_text in BUILDS[name]:
        path = fresh / "kernel" / file
        text = path.read_text()
        if old_text not in text:
            raise SoakError(f"{file} has no {old_text!r} any more")
        path.write_text(text.replace(old_text, new_text))
    subprocess.run([sys.executable, "build.py"], cwd=fresh, check=True, stdout=subprocess.DEVNULL)
    return fresh.rename(target)


def run(count: int, seed: int) -> Result:
    """*count* upgrades, each to one of the other builds."""
    choose = random.Random(seed)  # noqa: S311
    with ThreadPoolExecutor() as pool:
        builds = {"this": ROOT, **dict(zip(BUILDS, pool.map(make_build, BUILDS), strict=True))}
    taken: Counter[str] = Counter()
    with Scene() as scene:
        last, running = "this", scene.run()
        running.wait()
        prober = scene.prober()
        for number in range(count):
            # As a package does: the old agent ends, its policy goes on, the new one comes. One that
            # was killed leaves sums: those of another layout are taken in the first two.
            killed = number < 2 or choose.random() < 0.5
            running.end(signal.SIGKILL if killed else signal.SIGTERM)
            following = choose.choice([name for name in builds if name != last])
            if number < 2:
                following = ("other-layout", "this")[number]
            running = scene.run("/usr/bin/env", f"PYTHONPATH={builds[following]}")
            running.wait()
            taken[f"{last} to {following}"] += 1
            last = following
            _check_pins(scene)
        prober.close()
        running.end(signal.SIGTERM)
        taken_in = scene.in_history()
    decided = sum(prober.total[name] for name in ("refused", "out"))
    if taken_in < decided:
        raise SoakError(f"{decided} decisions, {taken_in} of them in history")
    wrong = prober.total["passed"] + prober.total["stopped"]
    told = ", ".join(f"{way} {times}" for way, times in sorted(taken.items()))
    return Result(
        wrong == 0,
        f"upgrade: {count} upgrades (seed {seed}: {told}), {prober.said()}; "
        f"history has each decision, {taken_in:,} for {decided:,}: where two layouts overlap, "
        "both count",
    )


def _check_pins(scene: Scene) -> None:
    """Nothing of the build before is left."""
    folders = list((PINS / instance_name(scene.place)).iterdir())
    if len(folders) != 1 or len(list((folders[0] / "programs").iterdir())) != 1:
        raise SoakError(f"more than one build is pinned: {folders}")
