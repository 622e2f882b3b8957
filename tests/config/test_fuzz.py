# SPDX-License-Identifier: Apache-2.0
"""Damaged policies: a policy or an error with a place, never anything else, and quickly.

``python -m tests.config.test_fuzz 1000000 SEED`` runs as many as are asked for.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aegis.config.lint import lint
from aegis.config.load import load_lone
from aegis.config.problem import PolicyError

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


def mutate(chance: random.Random) -> str:
    """One of the samples, with some pieces cut, doubled, moved or put in."""
    text = chance.choice(SAMPLES)
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 1, 2, 5, 40)))
        piece = chance.choice((chance.choice(PIECES), text[start:end] * 2, ""))
        text = text[:start] + piece + text[end:]
    return text


def try_one(text: str, file: Path) -> bool:
    """Whether *text* was taken; anything but a policy or a placed error escapes."""
    file.write_text(text, newline="")
    try:
        loaded = load_lone(file)
    except PolicyError as error:
        lines = text.count("\n") + 1
        for problem in error.problems:
            assert problem.where.file == str(file)
            assert 1 <= problem.where.line <= lines
            assert problem.where.column >= 1
            assert problem.message
        return False
    lint(loaded)
    return True


def run(count: int, seed: int, file: Path) -> tuple[int, float]:
    """Return how many were taken, and the seconds of the slowest."""
    chance = random.Random(seed)  # noqa: S311 (repeatable on purpose)
    taken, slowest = 0, 0.0
    for _ in range(count):
        text = mutate(chance)
        start = time.process_time()
        taken += try_one(text, file)
        slowest = max(slowest, time.process_time() - start)
    return taken, slowest


def test_damaged_policies(tmp_path: Path) -> None:
    """Some are still policies, most are not; each answer comes within 100 ms."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    taken, slowest = run(2000, seed, tmp_path / "fuzz.toml")
    assert 20 < taken < 1900
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
def test_what_might_be_slow(text: str, tmp_path: Path) -> None:
    start = time.process_time()
    assert not try_one(text, tmp_path / "slow.toml")
    assert time.process_time() - start < SLOWEST


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        print(run(int(sys.argv[1]), int(sys.argv[2]), Path(directory) / "fuzz.toml"))
