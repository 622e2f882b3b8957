# SPDX-License-Identifier: Apache-2.0
"""The way out of a host that is locked: ``aegis=off`` at boot, or a file."""

from pathlib import Path

OFF_FILE = Path("/etc/aegis/off")
OFF_WORD = "aegis=off"  # of the kernel's command line
KERNEL_WORDS = Path("/proc/cmdline")


def why_off(file: Path = OFF_FILE, words: Path = KERNEL_WORDS) -> str:
    """Why nothing may be put in force; empty: it may. What cannot be read does not say so."""
    try:
        if OFF_WORD in words.read_text("utf-8", "replace").split():
            return f"{OFF_WORD} is on the kernel's command line"
    except OSError:
        pass
    # A link that leads nowhere is a wish, too; who may make a file there is root.
    if file.is_symlink() or file.exists():
        return f"{file} exists"
    return ""
