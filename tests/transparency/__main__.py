# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.transparency [--modules A,B] [--stressors C,D]``, as root.

Runs CPython's tests of the network and stress-ng's stressors of sockets in a scratch
cgroup and a network of their own three times: without Aegis, with a policy that allows
everything in force, and with one in observe mode that would block and kill everything.
Exit code 1: something came out otherwise, each time it was run.
"""

import argparse
import os
import subprocess
import sys

from tests.transparency import cpython, stress
from tests.transparency.compare import Comparison, compare
from tests.transparency.suite import Suite


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.transparency", description=__doc__)
    parser.add_argument("--modules", help="of CPython, comma separated (default: all)")
    parser.add_argument("--stressors", help="of stress-ng, comma separated (default: all)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, for a network of its own")
    install()
    suites: list[Suite] = []
    if args.modules != "":
        suites.append(cpython.CPython(args.modules.split(",") if args.modules else cpython.MODULES))
    if args.stressors != "":
        suites.append(stress.StressNg(args.stressors.split(",") if args.stressors else None))
    results = compare(suites, say=lambda line: print(line, flush=True))
    for result in results:
        show(result)
    return 1 if any(result.differences or not result.was_seen for result in results) else 0


def missing() -> list[str]:
    """Debian's packages of the programs that are not there."""
    there = {
        cpython.PACKAGE: (cpython.LIBRARY / "test_socket.py").exists(),
        stress.PACKAGE: bool(stress.stressors()),
    }
    return [package for package, found in there.items() if not found]


def install() -> None:
    packages = missing()
    if packages:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, stdout=sys.stderr)


def show(result: Comparison) -> None:
    print(f"\n{result.suite.title}: {len(result.suite.names)} ({', '.join(result.suite.names)})")
    for side in result.sides:
        counts = ", ".join(f"{n:,} {word}" for word, n in sorted(side.counts.items()))
        print(f"  {side.title + ':':<16}{sum(side.counts.values()):>7,} outcomes: {counts}")
        if side.title in result.decided:
            print(f"{'':18}{result.decided[side.title]:,} verdicts in the kernel")
    for name, test in result.unsteady:
        print(f"  unsteady, the same on both sides when run again: {name} {test}")
    for title, name, test, words in result.differences:
        print(f"  DIFFERS {title}: {name} {test}: {words}")
    if not result.was_seen:
        print("  DIFFERS: Aegis judged nothing of this")
    print(f"  {len(result.differences)} differences")


if __name__ == "__main__":
    sys.exit(main())
