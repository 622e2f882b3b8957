# SPDX-License-Identifier: Apache-2.0
"""``sudo ./dev bench [NAME ...]``; ``python -m bench render RESULT.json``."""

import argparse
import contextlib
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench.catalogue import CATALOGUE
from bench.chart import svg
from bench.result import Result
from bench.table import markdown, text_lines
from bench.world import Size, World

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "performance.svg"
_BEGIN, _END = "<!-- measured -->\n", "<!-- end -->\n"


def main() -> int:
    if sys.argv[1:2] == ["render"]:
        return render(*sys.argv[2:])
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CATALOGUE))
    parser.add_argument("--smoke", action="store_true", help="only show that each one runs")
    parser.add_argument("--json", type=Path, default=OUTPUT / "result.json")
    args = parser.parse_args()
    if unknown := set(args.names) - set(CATALOGUE):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(CATALOGUE)}")
    run(args.names or list(CATALOGUE), Size(args.smoke), args.json)
    print(f"written: {args.json} and {args.json.with_suffix('.svg')}")
    return 0


def keep(result: Result, path: Path) -> None:
    """As JSON at *path*, and as a chart beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result.to_json())
    path.with_suffix(".svg").write_text(svg(result))


def run(names: list[str], size: Size, path: Path) -> None:
    """Run *names*, printing each one's rows, and keeping them at *path*, as they come."""
    allow_many_files()
    result, begun = Result(about()), time.monotonic()
    world = World(size)
    try:
        for name in names:
            for finding in CATALOGUE[name](world):
                result.add(name, finding)
            print("\n".join(text_lines(name, result.rows.get(name, []))), flush=True)
            result.about["took"] = f"{time.monotonic() - begun:.0f} s"
            keep(result, path)  # a later one may fail
    finally:
        world.close()
    for unable in result.unable:
        print(f"could not run here: {unable.what}: {unable.why}")


def about() -> dict[str, str]:
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "kernel": platform.release(),
        "CPUs": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "on": time.strftime("%Y-%m-%d"),
    }


def allow_many_files() -> None:
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))


def render(path: str, *more: str) -> int:
    """Put the tables of a result into the page, and its charts beside it."""
    result = Result.from_json(Path(path).read_text())
    page = Path(more[0]) if more else PAGE
    before, begin, rest = page.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        print(f"bench: {page} has no place for the figures", file=sys.stderr)
        return 1
    page.write_text(before + _BEGIN + "\n".join(markdown(result)) + "\n" + _END + after)
    (page.with_suffix(".svg") if more else CHART).write_text(svg(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
