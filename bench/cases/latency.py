# SPDX-License-Identifier: Apache-2.0
"""How soon what happened is in the log, starts a script, kills."""

from collections.abc import Iterator
from pathlib import Path

from bench.policies import FAR, Shape
from bench.result import Finding, at_most, quartiles, row
from bench.world import Place, World

NAME = "latency"

_FIRST_PORT = 20000
_MS = 1e6


def measure(world: World) -> Iterator[Finding]:
    yield from _to_the_log(world)
    yield from _to_a_script(world)
    yield from _to_death(world)


def _to_the_log(world: World) -> Iterator[Finding]:
    with world.places("aegis") as places:
        agent = places["aegis"].govern(Shape(keys='actions = ["log", "block"]\ndetent = 0'))
        agent.log.touch()
        times = _late(places["aegis"], world, "log", agent.log, FAR, world.size.of(500, 3))
    yield row("connect() to its event in the log", times, unit="ms", goal=at_most(2))
    slow = sorted(times)[len(times) * 99 // 100]
    yield row("connect() to its event in the log: p99", [slow], unit="ms", goal=at_most(20))


def _to_a_script(world: World) -> Iterator[Finding]:
    folder = world.workshop.new_folder()
    scripts, stamps = folder / "scripts", folder / "stamps"
    scripts.mkdir(mode=0o755)
    stamps.touch()
    program = scripts / "stamp"
    program.write_bytes(world.peer.read_bytes())
    program.chmod(0o755)
    shape = Shape(
        keys='actions = ["script:stamp", "block"]\ndetent = 0',
        settings=f'script_dirs = ["{scripts}"]',
    )
    count = world.size.of(200, 3)
    with world.places("aegis") as places:
        alone = _late(places["aegis"], world, "start", stamps, program, count)
        places["aegis"].govern(shape)
        times = _late(places["aegis"], world, "script", stamps, FAR, count)
    own = quartiles(alone)[1]
    yield row(
        "connect() to a script running, beyond the script's own start",
        [value - own for value in times], unit="ms", goal=at_most(10),
        note=f"its own start, from a C program: {own:.2f} ms",
    )  # fmt: skip


def _to_death(world: World) -> Iterator[Finding]:
    for keys, who, goal in (
        ('actions = ["log", "kill"]', "the best this kernel has", None),
        ('actions = ["log", "kill"]\nkill_tree = true', "the agent, by pidfd", at_most(5)),
    ):
        with world.places("aegis") as places:
            place = places["aegis"]
            place.govern(Shape(keys=f"{keys}\ndetent = 0"))
            outcome = place.programs.run(
                world.late, "kill", FAR, str(_FIRST_PORT), str(world.size.of(200, 3)), patience=120
            )
        assert outcome.code == 0, (outcome.code, outcome.stdout[-200:], outcome.stderr)
        pairs = [tuple(map(int, line.split())) for line in outcome.stdout.splitlines()]
        after = sum(counted > 0 for _, counted in pairs)
        yield row(
            f"refused TCP connect() to the process dead, killed by {who}",
            [took / _MS for took, _ in pairs], unit="ms", goal=goal,
            note=f"{after} of {len(pairs)} ran an instruction after their connect()",
        )  # fmt: skip


def _late(
    place: Place, world: World, what: str, file: Path, to: str | Path, count: int
) -> list[float]:
    ports = [] if what == "start" else [str(_FIRST_PORT)]
    outcome = place.programs.run(world.late, what, file, str(to), *ports, str(count), patience=120)
    assert outcome.code == 0, (outcome.code, outcome.stdout[-200:], outcome.stderr)
    return [int(line) / _MS for line in outcome.stdout.splitlines()]
