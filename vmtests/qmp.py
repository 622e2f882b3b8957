# SPDX-License-Identifier: Apache-2.0
"""What of QEMU's own protocol (QMP) it takes to wake a guest that sleeps (S3)."""

import json
import socket
import time
from pathlib import Path
from typing import Any, Self

ANSWER_S = 10.0


class Monitor:
    """One connection to the machine that listens at *path*.

    :raises OSError: when there is none, or it is silent.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            self._lines.readline()  # its greeting
            self.ask("qmp_capabilities")
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, command: str) -> dict[str, Any]:
        self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while line := self._lines.readline():
            answer = json.loads(line)
            if "return" in answer:
                return dict(answer["return"])
            if "error" in answer:
                raise OSError(f"{command}: {answer['error']}")
        raise OSError(f"{command}: the machine is gone")


class Waker:
    """Wakes the machine at *path* whenever it has slept *seconds*; *naps* of them, so far."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._since: float | None = None
        self.naps: list[float] = []

    def look(self) -> None:
        with Monitor(self._path) as monitor:
            if monitor.ask("query-status")["status"] != "suspended":
                return
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if now - self._since >= self._seconds:
                monitor.ask("system_wakeup")
                self.naps.append(round(now - self._since, 1))
                self._since = None
