# SPDX-License-Identifier: Apache-2.0
"""The policy that was last in force, compiled, in a file: what the next boot begins with.

It needs no configuration that is right, no names that resolve and no library to
read, only this file. One line of JSON says what the rest, JSON as well, must be.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from aegis.errors import AegisError
from aegis.policy.address import normalise
from aegis.policy.garbage import uncollected
from aegis.policy.model import Address
from aegis.policy.saved import FORMAT, decode, encode
from aegis.policy.tables import Tables
from aegis.trust import ROOTS, Trust, TrustError

LAST_GOOD_PATH = Path("/var/lib/aegis/last-good")
FILE_BYTES = 64 << 20  # read before anything is known about the file
RETRY_S = 60.0
_MAGIC = "aegis last good policy"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LastGoodError(AegisError):
    """There is no last good policy to go by; the text says why."""


@dataclass(frozen=True)
class LastGood:
    """*generation*, *boot*: what its records were numbered with, and until when that holds.

    *names*: what the names in it meant.
    """

    tables: Tables
    generation: int = 0
    boot: str = ""
    names: Mapping[str, frozenset[Address]] = field(default_factory=dict)


def this_boot() -> str:
    return _BOOT_ID.read_text().strip()


def read(path: Path, trust: Trust = ROOTS) -> LastGood:
    """Return what *path* holds.

    :raises LastGoodError: when it is not there, not root's alone, damaged, or another version's
    """
    try:
        fd = trust.open(str(path), private=True)
    except FileNotFoundError:
        raise LastGoodError(f"{path}: no policy was in force yet") from None
    except TrustError as error:
        raise LastGoodError(str(error)) from None
    except OSError as error:
        raise LastGoodError(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise LastGoodError(f"{path}: {error.strerror}") from None
    try:
        with uncollected():
            return _parse(content)
    except _ForeignError as error:
        raise LastGoodError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise LastGoodError(f"{path}: damaged: {error}") from None


class _ForeignError(Exception):
    """Whole, but not ours to read."""


def _parse(content: bytes) -> LastGood:
    head, _, body = content.partition(b"\n")
    header = json.loads(head)
    if not isinstance(header, dict) or header.get("is") != _MAGIC:
        raise ValueError("it does not begin as a last good policy")
    digest = hashlib.sha256(body).hexdigest()
    if header.get("sha256") != digest:
        raise ValueError(f"its {len(body)} bytes are not what was written")
    if header.get("format") != FORMAT:
        raise _ForeignError(f"of another version of Aegis ({header.get('format')}, not {FORMAT})")
    document = json.loads(body)
    try:
        names = {
            str(name): frozenset(_address(text) for text in texts)
            for name, texts in document["names"].items()
        }
        generation, boot = int(document["generation"]), str(document["boot"])
        tables = decode(document["tables"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a last good policy: {error!r}") from None
    return LastGood(tables, generation, boot, names)


def _address(text: str) -> Address:
    return normalise(ip_address(text))


def write(path: Path, good: LastGood) -> None:
    """Put *good* in the place of what *path* holds, in one step; root's alone to read.

    :raises OSError: when it cannot be written; then what *path* held is still there
    """
    document = {
        "generation": good.generation,
        "boot": good.boot,
        "names": {name: sorted(map(str, held)) for name, held in good.names.items()},
        "tables": encode(good.tables),
    }
    body = json.dumps(document, separators=(",", ":")).encode()
    header = {"is": _MAGIC, "format": FORMAT, "sha256": hashlib.sha256(body).hexdigest()}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(json.dumps(header).encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


Notice = Callable[[str, str], object]


class Keeper:
    """Writes what was put in force for good, soon after and not before ``keep_forever`` runs.

    *path* None: nothing is kept. *names*: what names mean now. *tell* gets one
    notice when the file cannot be written, and one when it can be again.
    """

    def __init__(
        self, path: Path | None, names: Callable[[], Mapping[Address, str]], tell: Notice
    ) -> None:
        self.path = path
        self.error: str | None = None
        self._names = names
        self._tell = tell
        self._pending: tuple[Tables, int] | None = None
        self._due = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = threading.Lock()

    def offer(self, tables: Tables, generation: int) -> None:
        """*tables* are in force; from any thread."""
        if self.path is None:
            return
        self._pending = tables, generation
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._due.set)

    async def keep_forever(self) -> None:
        """Write what is offered; what fails is tried again."""
        self._loop = asyncio.get_running_loop()
        while True:
            if self._pending is not None:
                await asyncio.to_thread(self._write)
            self._due.clear()
            if self._pending is None or self.error is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if self.error is None else RETRY_S):
                        await self._due.wait()

    def close(self) -> None:
        """Write what is left; and the file's time is now, which is when it was last in force."""
        if self._loop is None or self.path is None:
            return  # the start failed: nothing of it is in force
        self._loop = None
        self._write()
        if self.error is None:
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _write(self) -> None:
        with self._writing:  # one that was cancelled may still be at it
            self._write_pending()

    def _write_pending(self) -> None:
        pending = self._pending
        if pending is None or self.path is None:
            return
        tables, generation = pending
        try:
            write(self.path, LastGood(tables, generation, this_boot(), self._by_name()))
        except OSError as error:
            failure = f"{self.path}: {error.strerror}"
            if self.error is None:
                message = f"the policy in force is not kept for the next boot: {failure}"
                self._say("last-good-not-kept", message)
            self.error = failure
            return
        if self.error is not None:
            self._say("last-good-kept", f"{self.path}: the policy in force is kept again")
        self.error = None
        if self._pending is pending:  # else there is a newer one
            self._pending = None

    def _say(self, kind: str, message: str) -> None:
        """On the loop: who is told writes the log there."""
        if self._loop is None:
            self._tell(kind, message)
        else:
            self._loop.call_soon_threadsafe(self._tell, kind, message)

    def _by_name(self) -> dict[str, frozenset[Address]]:
        found: dict[str, set[Address]] = {}
        for address, name in dict(self._names()).items():
            found.setdefault(name, set()).add(address)
        return {name: frozenset(held) for name, held in found.items()}


def age_s(path: Path) -> float:
    """Seconds since the policy in *path* was last known to be in force, by the wall clock."""
    return max(0.0, time.time() - path.stat().st_mtime)
