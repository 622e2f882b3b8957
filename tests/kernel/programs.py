# SPDX-License-Identifier: Apache-2.0
"""Running real programs inside the scratch cgroup and the test network."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import Network
from tests.kernel.settings import PATIENCE

# The shell moves itself, then becomes the program: one process, one pid throughout.
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True)
class Outcome:
    """How a program ended. *code* is negative when a signal killed it."""

    pid: int
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def word(self) -> str:
        """The prober's answer: ``OK`` or the name of an errno."""
        return self.stdout.strip()


class Talk:
    """A running ``prober -``: one command, one answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def say(self, command: str) -> str:
        """The answer to *command*; empty when the program is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline().strip()

    def reaches(self, form: str, address: str, port: int) -> bool:
        """Whether it went out: False is the kernel's EPERM, anything else a test's mistake."""
        word = self.say(f"{form} {address} {port}")
        assert word in {"OK", "ECONNREFUSED", "EPERM"}, f"{form} {address} {port}: {word!r}"
        return word != "EPERM"

    def end(self) -> int:
        """End of input; the exit code, negative for a signal."""
        try:
            self._process.communicate(timeout=PATIENCE)
        except BrokenPipeError:
            self._process.wait(timeout=PATIENCE)
        return self._process.returncode


class Programs:
    """Starts programs in *scratch*, seen by the agent, on *network* only."""

    def __init__(self, scratch: ScratchCgroup, network: Network) -> None:
        self._scratch = scratch
        self._network = network
        self._started: list[subprocess.Popen[str]] = []
        self._standing: dict[str, Talk] = {}

    @property
    def place(self) -> Path:
        """The directory of the scratch cgroup."""
        return self._scratch.path

    def start(
        self, *argv: str | Path, user: int | None = None, unit: str | None = None
    ) -> subprocess.Popen[str]:
        """Start *argv* as *user*, in the cgroup *unit* below the scratch one."""
        place = self._scratch.path if unit is None else self._scratch.unit(unit)
        rights: list[str] = []
        if user is not None:
            rights = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
        process = self._network.call(
            subprocess.Popen,
            ["/bin/sh", "-c", _ENTER, str(place), *rights, *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            env=_ENVIRONMENT,
            cwd="/",
        )
        self._started.append(process)
        return process

    def run(
        self,
        *argv: str | Path,
        user: int | None = None,
        unit: str | None = None,
        stdin: str = "",
        patience: float = PATIENCE,
    ) -> Outcome:
        """Run *argv* to its end."""
        begun = time.monotonic()
        process = self.start(*argv, user=user, unit=unit)
        try:
            stdout, stderr = process.communicate(stdin, timeout=patience)
        finally:
            if process.poll() is None:
                process.kill()
        seconds = time.monotonic() - begun
        return Outcome(process.pid, process.returncode, stdout, stderr, seconds)

    def curl(self, curl: str | Path, url: str, *flags: str, user: int | None = None) -> Outcome:
        """curl, quiet but for errors, never through a proxy."""
        limits = ("--silent", "--show-error", "--noproxy", "*", "--max-time", f"{PATIENCE:.0f}")
        return self.run(curl, *limits, *flags, url, user=user)

    def talk(self, prober: str | Path, *, user: int | None = None, unit: str | None = None) -> Talk:
        """A prober that waits for commands."""
        return Talk(self.start(prober, "-", user=user, unit=unit))

    def standing(self, prober: str | Path) -> Talk:
        """One running prober of that file for all who ask: starting one for each is slow."""
        key = str(prober)
        if key not in self._standing:
            self._standing[key] = self.talk(prober)
        return self._standing[key]

    def close(self) -> None:
        """Kill what was started and still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait()
