# SPDX-License-Identifier: Apache-2.0
"""How soon what happened is in the log, starts a script, kills."""

from collections.abc import Iterator
from pathlib import Path

from bench.policies import FAR, Shape
from bench.result import Finding, at_most, quartiles, row
from bench.world import Place, World
from tests.pace import HUNG_S

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
        lines = _late(places["aegis"], "log", agent.log, FAR, _FIRST_PORT, world.size.of(500, 3))
    times = [took / _MS for (took,) in lines]
    yield row("refused TCP connect() to its event in the log", times, unit="ms", goal=at_most(2))
    slow = sorted(times)[len(times) * 99 // 100]
    yield row(
        "refused TCP connect() to its event in the log: p99", [slow],
        unit="ms", goal=at_most(20), note=f"of those {len(times)}",
    )  # fmt: skip


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
        places["aegis"].govern(shape)
        pairs = _late(places["aegis"], "script", stamps, FAR, _FIRST_PORT, count, program)
    own = quartiles([alone for _, alone in pairs])[1] / _MS
    yield row(
        "refused TCP connect() to a script running, beyond the script's own start",
        [(took - alone) / _MS for took, alone in pairs], unit="ms", goal=at_most(10),
        note=f"its own start, from a C program, in turn: {own:.2f} ms",
    )  # fmt: skip


def _to_death(world: World) -> Iterator[Finding]:
    for more, who, goals in (
        ("", "the best this kernel has", (None, at_most(0))),
        ("\nkill_tree = true", "the agent, by pidfd", (at_most(5), None)),
    ):
        keys = f'actions = ["log", "kill"]{more}\ndetent = 0'
        count = world.size.of(200, 3)
        with world.places("aegis") as places:
            place = places["aegis"]
            place.govern(Shape(keys=keys))
            pairs = _late(place, "kill", FAR, _FIRST_PORT, count)
        yield row(
            f"refused TCP connect() to the process dead, killed by {who}",
            [took / _MS for took, _ in pairs], unit="ms", goal=goals[0],
        )  # fmt: skip
        yield row(
            f"how many ran an instruction after their refused connect(), killed by {who}",
            [sum(counted > 0 for _, counted in pairs)], unit=f"of {count}", goal=goals[1],
        )  # fmt: skip


def _late(place: Place, *words: str | int | Path) -> list[tuple[int, ...]]:
    """The numbers of each of its lines, ns."""
    outcome = place.programs.run(place.world.late, *map(str, words), patience=2 * HUNG_S)
    assert outcome.code == 0, (outcome.code, outcome.stdout[-200:], outcome.stderr)
    return [tuple(map(int, line.split())) for line in outcome.stdout.splitlines()]
