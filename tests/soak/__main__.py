# SPDX-License-Identifier: Apache-2.0
"""``./dev soak NAME [--count N | --short] [--seed N]``: one line with the result.

Run as root; minutes long, seconds with ``--short``. Exit code 1: something did not hold.
"""

import argparse
import os
import secrets
import sys
import time

from tests.soak import SOAKS, find


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("name", choices=SOAKS)
    parser.add_argument("--count", type=int, help="how often, or for how many seconds")
    parser.add_argument("--short", action="store_true", help="as the tests run it")
    parser.add_argument("--seed", type=int, help="of what is random (default: another each time)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, for a cgroup and a network of its own")
    soak = find(args.name)
    count = args.count or (soak.SHORT if args.short else soak.LONG)
    seed = secrets.randbelow(1 << 32) if args.seed is None else args.seed
    begun = time.monotonic()
    try:
        result = soak.run(count, seed)
    except AssertionError as error:
        print(f"{args.name}: FAILED (seed {seed}): {error}")
        return 1
    print(f"{'ok' if result.ok else 'FAILED'} {result.line}; {time.monotonic() - begun:.0f} s")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
