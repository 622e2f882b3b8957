# SPDX-License-Identifier: Apache-2.0
"""stress-ng's stressors of sockets; of each, what it came to is compared."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.transparency.suite import Outcomes, Run

PACKAGE = "stress-ng"
# Beyond its class "network": what else makes sockets.
MORE = ("netlink-proc", "netlink-task", "sendfile", "sockabuse", "udp", "udp-flood")
SECONDS = 2

_SKIPPED = re.compile(r"\bskipp(ed|ing)\b|not implemented|unsupported")
_FAILED = re.compile(r"stress-ng: (fail|error):")


def stressors() -> tuple[str, ...]:
    """Those that this version has."""
    program = shutil.which(PACKAGE)
    if program is None:
        return ()
    listed = subprocess.run(
        [program, "--class", "network?"], capture_output=True, text=True, check=False
    )
    known = (listed.stdout + listed.stderr).partition("stressors:")[2].split()
    return tuple(sorted({*known, *MORE}))


class StressNg:
    """One stressor at a time, one process of it for two seconds."""

    title = "stress-ng's stressors"

    def __init__(self, names: Sequence[str] | None = None, seconds: int = SECONDS) -> None:
        self.names = stressors() if names is None else tuple(names)
        self._seconds = seconds

    def run(self, names: Sequence[str], run: Run, folder: Path) -> Outcomes:
        return {name: {"(outcome)": self._stress(name, run, folder)} for name in names}

    def _stress(self, name: str, run: Run, folder: Path) -> str:
        argv = [PACKAGE, f"--{name}", "1", "--timeout", str(self._seconds), "--verify"]
        result = run([*argv, "--temp-path", str(folder)], 60)
        failed = len(_FAILED.findall(result.output))
        word = "skipped" if _SKIPPED.search(result.output) else "passed"
        if result.code or failed:
            return f"exit code {result.code}, {'with' if failed else 'without'} failures"
        return word
