# SPDX-License-Identifier: Apache-2.0
"""The policy that was last in force, compiled, in a file: what the next boot begins with.

It needs no configuration that is right, no names that resolve and no library to
read, only this file. One line of JSON says what the rest, JSON as well, must be.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
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


def age_s(path: Path) -> float:
    """Seconds since the policy in *path* was last known to be in force, by the wall clock."""
    return max(0.0, time.time() - path.stat().st_mtime)
