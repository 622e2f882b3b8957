# SPDX-License-Identifier: Apache-2.0
"""Damaged policies: a policy or an error with a place, never anything else, and quickly.

``python -m tests.config.test_fuzz 1000000 [SEED]`` runs as many as are asked for.
"""

import os
import random
import sys
import time
from pathlib import Path
from types import TracebackType

import pytest

from aegis.config.lint import lint
from aegis.config.load import load_lone
from aegis.config.problem import PolicyError
from aegis.policy.compile import compile_policy
from aegis.policy.model import Resolution
from tests.config.printer import meaning, print_policy

ROOT = Path(__file__).parents[2]
SAMPLES = (
    (ROOT / "etc" / "aegis.toml").read_text(),
    """\
[global]
mode = "enforce"
default_actions = ["block", "log", "script:x"]
[whitelist]
ips = ["192.168.0.0/16", "::1"]
[[app]]
cmdline = "/usr/bin/x --y"
user = "root"
unit = "x.service"
remotes = ["bob.com:8086", "[2001:db8::/32]:1-9/udp", "10.0.0.0/8"]
locals = []
peers = ["fc00::/7"]
[[app]]
path = "/nonexistent/a"
remote = false
ports = ["1", "2-3/tcp"]
sockets = ["raw"]
detent = 0
app2 = { a = [1, "x"], 'b' = \"\"\"
multi\"\"\" }
""",
)
PIECES = (
    *'[]{}"=,.#/:-0\n',
    "[[app]]\n", '"""', "'", "\\", "\x00", "\u202e", "\r\n", "é", "true", "8086", "10.0.0.0/8",
    "65536", "::", "exe = ", "ports", "global", "1e400", "2024-01-01", "[" * 50, "9" * 30,
)  # fmt: skip
SLOWEST = 0.1
COUNT = int(os.environ.get("AEGIS_FUZZ", "20000"))


class Memory:
    """A file that is nowhere: a million real ones would keep the disk busy for hours."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("policy.toml")
        self.path = Path(f"/proc/self/fd/{self._fd}")

    def write(self, text: str) -> None:
        os.truncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def __enter__(self) -> "Memory":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


def mutate(chance: random.Random) -> str:
    """One of the samples, with some pieces cut, doubled, moved or put in."""
    text = chance.choice(SAMPLES)
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 1, 2, 5, 40)))
        piece = chance.choice((chance.choice(PIECES), text[start:end] * 2, ""))
        text = text[:start] + piece + text[end:]
    return text


def try_one(text: str, memory: Memory) -> bool:
    """Whether *text* was taken; anything but a policy or a placed error escapes."""
    memory.write(text)
    try:
        loaded = load_lone(memory.path)
    except PolicyError as error:
        lines = text.count("\n") + 1
        for problem in error.problems:
            assert problem.where.file == str(memory.path)
            assert 1 <= problem.where.line <= lines
            assert problem.where.column >= 1
            assert problem.message
        return False
    lint(loaded)
    return True


def check_twice(text: str, memory: Memory) -> None:
    """What was taken means the same when it is printed and read again."""
    memory.write(text)
    policy = load_lone(memory.path).policy
    memory.write(print_policy(policy))
    again = load_lone(memory.path).policy
    assert meaning(again) == meaning(policy)
    assert compile_policy(meaning(again), Resolution()) == compile_policy(
        meaning(policy), Resolution()
    )


def run(count: int, seed: int) -> tuple[int, float]:
    """Return how many were taken, and the seconds of the slowest.

    :raises AssertionError: with the text that did it
    """
    chance = random.Random(seed)  # noqa: S311 (repeatable on purpose)
    taken, slowest = 0, 0.0
    with Memory() as memory:
        for number in range(count):
            text = mutate(chance)
            start = time.process_time()
            try:
                accepted = try_one(text, memory)
                slowest = max(slowest, time.process_time() - start)
                if accepted:
                    taken += 1
                    check_twice(text, memory)
            except BaseException as error:
                error.add_note(f"seed {seed}, number {number}: {text!r}")
                raise
    return taken, slowest


def test_damaged_policies() -> None:
    """Some are still policies, most are not; each answer comes within 100 ms."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    taken, slowest = run(COUNT, seed)
    assert COUNT / 100 < taken < COUNT * 0.95
    assert slowest < SLOWEST


@pytest.mark.parametrize(
    "text",
    [
        "[[app]]\nports = [" + "[" * 300 + "]" * 300 + "]",
        "a" + ".a" * 900 + " = 1",
        "[[app]]\nremotes = ['" + "/" * 250 + "a']",
        "[[app]]\nremotes = ['" + "-" * 299 + "']",
        "[[app]]\nexe = '" + "é" * 100_000 + "'",
    ],
)
def test_what_might_be_slow(text: str) -> None:
    start = time.process_time()
    with Memory() as memory:
        assert not try_one(text, memory)
    assert time.process_time() - start < SLOWEST


if __name__ == "__main__":
    CHOSEN = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    print(f"seed {CHOSEN}", flush=True)
    TAKEN, LONGEST = run(int(sys.argv[1]), CHOSEN)
    print(f"{int(sys.argv[1]):,} policies, {TAKEN:,} taken, the slowest {LONGEST * 1000:.1f} ms")
    sys.exit(LONGEST >= SLOWEST)
