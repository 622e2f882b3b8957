# SPDX-License-Identifier: Apache-2.0
"""Folders that other users are to come through."""

import subprocess
from pathlib import Path
from stat import S_IMODE


def open_to_all(folder: Path) -> None:
    """Let everybody pass through *folder* and what it is in; no more than that is changed.

    /tmp may be one of them, which is everybody's to write to, and not one another's to delete.
    """
    for place in (folder, *folder.parents):
        mode = S_IMODE(place.stat().st_mode)
        if mode | 0o011 != mode:
            place.chmod(mode | 0o011)


def closed_to(uid: int, folder: Path) -> Path | None:
    """The first on the way to *folder* that *uid* may not enter, whatever keeps it out."""
    for place in (*reversed(folder.parents), folder):
        command = ["/usr/bin/test", "-x", str(place)]
        done = subprocess.run(command, user=uid, group=uid, extra_groups=[], cwd="/", check=False)
        if done.returncode:
            return place
    return None
