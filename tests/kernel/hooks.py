# SPDX-License-Identifier: Apache-2.0
"""A hook script that writes down how it was run."""

import time
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.settings import PATIENCE

# /proc/$$/environ is the environment as handed over, before the shell adds to it.
_RECORDER = """\
#!/bin/sh
umask 077
out="{out}/$AEGIS_PID"
/bin/mkdir "$out.part"
/bin/cat "/proc/$$/environ" > "$out.part/environ"
/bin/cat > "$out.part/stdin"
/bin/readlink "/proc/$$/cwd" > "$out.part/cwd"
/bin/mv "$out.part" "$out"
echo "noted $AEGIS_PID"
"""


@dataclass(frozen=True)
class HookRun:
    environment: dict[str, str]
    stdin: str
    directory: str


class Hooks:
    """A script directory with one recorder in it; a run is found by the program's pid."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "scripts"
        self._out = folder / "runs"
        self.directory.mkdir(mode=0o755)
        self._out.mkdir(mode=0o700)
        script = self.directory / "10-recorder"
        script.write_text(_RECORDER.format(out=self._out))
        script.chmod(0o755)

    def has_run(self, pid: str) -> bool:
        return (self._out / pid).is_dir()

    def wait(self, pid: str) -> HookRun:
        """What the script was given for the event of *pid*."""
        deadline = time.monotonic() + PATIENCE
        while not self.has_run(pid):
            assert time.monotonic() < deadline, f"no hook script ran for pid {pid}"
            time.sleep(0.02)
        run = self._out / pid
        pairs = (run / "environ").read_bytes().decode("ascii").split("\0")
        environment = dict(pair.split("=", 1) for pair in pairs if pair)
        return HookRun(environment, (run / "stdin").read_text(), (run / "cwd").read_text().strip())
