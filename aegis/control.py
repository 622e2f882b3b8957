# SPDX-License-Identifier: Apache-2.0
"""The control socket: root asks the running agent, one JSON line each way.

This is what every command needs; the agent's end is ``control_server``, since
asyncio takes a command as long to import as all else of it.

``/run/aegis/INSTANCE.sock``; requests ``{"do": "reload" | "status" | …}``, with
arguments beside it; replies ``{"ok": true, …}`` or ``{"ok": false, "error": "…"}``.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from aegis.errors import ControlError

RUN = Path("/run/aegis")
LOCK_S = 0.5  # whoever asks which agents run holds the lock for a moment
REPLY_S = 120.0  # a reload of a large policy, with names to resolve


def socket_path(instance: str) -> Path:
    return RUN / f"{instance}.sock"


def running() -> list[str]:
    """Instances whose agent holds its lock, sorted."""
    locks = sorted(RUN.glob("*.lock")) if RUN.is_dir() else []
    return [lock.stem for lock in locks if _is_held(lock)]


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def only_one(instance: str) -> Iterator[None]:
    """Hold the instance's lock.

    :raises ControlError: when another agent has it.
    """
    RUN.mkdir(mode=0o700, exist_ok=True)
    RUN.chmod(0o700)
    path = RUN / f"{instance}.lock"
    deadline = time.monotonic() + LOCK_S
    while not (lock := _try_lock(path)):
        if time.monotonic() > deadline:
            raise ControlError(f"another agent already runs for {instance}")
        time.sleep(0.02)
    with lock:
        try:
            remove_stale()
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_stale() -> None:
    """The files of agents that were killed: nobody holds those locks any more."""
    for path in RUN.glob("*.lock"):
        with contextlib.suppress(OSError):
            lock = _try_lock(path)
            if lock is not None:
                with lock:
                    socket_path(path.stem).unlink(missing_ok=True)
                    path.unlink(missing_ok=True)


def _try_lock(path: Path) -> TextIO | None:
    """The locked file, still the one at *path*: its last holder may just have removed it."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None


def ask(
    instance: str, request: str, patience: float = REPLY_S, /, **arguments: str | float | bool
) -> dict[str, Any]:
    """Return the agent's reply, which may take *patience* seconds.

    :raises ControlError: when no agent answers, or with its own refusal.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(patience)
            client.connect(str(socket_path(instance)))
            client.sendall(json.dumps({"do": request, **arguments}).encode() + b"\n")
            with client.makefile("rb") as stream:
                line = stream.readline()
    except (FileNotFoundError, ConnectionError):
        raise ControlError(f"no agent is running for {instance}") from None
    except OSError as error:
        raise ControlError(f"asking the agent of {instance}: {error}") from None
    if not line:
        raise ControlError(f"the agent of {instance} ended without an answer")
    reply: dict[str, Any] = json.loads(line)
    if not reply.pop("ok"):
        raise ControlError(str(reply.get("error")))
    return reply
