# SPDX-License-Identifier: Apache-2.0
"""Which files make up a policy, in which order, and which are passed over."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aegis.trust import Trust, read_any

MAIN_FILE = Path("/etc/aegis.toml")


@dataclass(frozen=True)
class Listing:
    """The drop-ins of all directories in reading order, and what was passed over and why."""

    files: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def read_file(path: str, trust: Trust | None) -> bytes:
    """Return what *path* holds; without *trust*, whoever wrote it.

    :raises TrustError: when it may not be used
    :raises OSError: when it cannot be read
    """
    return trust.read(path) if trust else read_any(path)


def list_names(directory: str, trust: Trust | None) -> list[str]:
    """Return the names in *directory*; raises as ``read_file``."""
    return trust.names(directory) if trust else [path.name for path in Path(directory).iterdir()]


def order_drop_ins(names: Iterable[tuple[str, str]]) -> Listing:
    """Sort (directory, name) pairs by the bytes of the name, whatever the directory.

    Equal names keep the order their directories were given in.
    """
    files: list[str] = []
    skipped: list[tuple[str, str]] = []
    for directory, name in sorted(names, key=lambda pair: os.fsencode(pair[1])):
        path = str(Path(directory) / name)
        if reason := _reason_to_skip(name):
            skipped.append((path, reason))
        else:
            files.append(path)
    return Listing(tuple(files), tuple(skipped))


def _reason_to_skip(name: str) -> str | None:
    """Editors and package managers leave old and new copies beside the file in use."""
    if name.startswith("."):
        return "its name begins with a dot"
    if "~" in name:
        return "an editor's backup"
    if ".dpkg-" in name or ".rpm" in name:
        return "left by the package manager"
    if not name.endswith(".toml"):
        return "its name does not end in .toml"
    return None
