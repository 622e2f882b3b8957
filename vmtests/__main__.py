# SPDX-License-Identifier: Apache-2.0
"""``python -m vmtests KERNEL [PYTEST ARGS...]``: one guest, by hand."""

import sys

from vmtests.fetch import STATE
from vmtests.kernels import KERNELS
from vmtests.vm import run_pytest


def main() -> int:
    """Run pytest in the guest, print what it printed and return its exit code."""
    matrix = {kernel.name: kernel for kernel in KERNELS}
    if len(sys.argv) < 2 or sys.argv[1] not in matrix:
        sys.stderr.write(f"usage: python -m vmtests {'|'.join(matrix)} [PYTEST ARGS...]\n")
        return 2
    name, *arguments = sys.argv[1:]
    run = run_pytest(matrix[name], STATE / "manual" / name, *(arguments or ["tests/kernel"]))
    print(run.output)
    print(f"{run.release}: booted in {run.boot_seconds:.0f} s, {run.total_seconds:.0f} s in all")
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main())
