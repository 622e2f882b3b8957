# SPDX-License-Identifier: Apache-2.0
"""The single texts of a policy, checked: selectors, action words, directories, names."""

import os
import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import PurePosixPath

from aegis.config.limits import CMDLINE_BYTES, EXE_BYTES, PATH_BYTES, UID, UNIT_BYTES
from aegis.policy.model import KERNEL, Actions

ACTIONS = ("log", "notify", "block", "kill", "allow")
SOCKETS = ("sctp", "dccp", "udplite", "raw", "packet", "icmp", "vsock", "other")
SCRIPT = "script:"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The known word most like *word*, as the end of a sentence; empty when none is."""
    close = get_close_matches(word[:64].lower(), known, n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def check_exe(text: str) -> str:
    """A base name.

    :raises ValueError: saying what to write instead
    """
    if "/" in text:
        raise ValueError(f'"{text}" is a path; write path = "{text}", or only the base name')
    if text == KERNEL:
        raise ValueError(f'a file could be called "{text}"; write path = "{text}"')
    return _check_size(text, EXE_BYTES, "a base name")


def check_path(text: str) -> str:
    """An absolute path, or what kernel threads are called.

    :raises ValueError: saying what to write instead
    """
    if text == KERNEL:
        return text
    if not text.startswith("/"):
        raise ValueError(f'"{text}" does not begin with "/"; write exe for a base name')
    return _check_size(text, PATH_BYTES, "a path")


def check_cmdline(text: str) -> str:
    """A command line; raises as ``check_exe``."""
    return _check_size(text, CMDLINE_BYTES, "a command line to look for")


def check_unit(text: str) -> str:
    """The name of a systemd unit; raises as ``check_exe``."""
    if "/" in text:
        raise ValueError(f'"{text}" is a path; write only the unit, such as "nginx.service"')
    return _check_size(text, UNIT_BYTES, "a unit")


def check_program(text: str) -> str:
    """A base name or an absolute path; raises as ``check_exe``."""
    return check_path(text) if "/" in text or text == KERNEL else check_exe(text)


def check_user(value: object) -> str | int:
    """A user name or a uid; raises as ``check_exe``."""
    if isinstance(value, str):
        return _check_size(value, PATH_BYTES, "a user name")
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= UID:
            return value
        raise ValueError(f"{value} is not a uid")
    raise ValueError("must be a user name or a uid")


def check_directory(text: str) -> str:
    """An absolute path without ``..``, cleaned of doubled slashes; raises as ``check_exe``."""
    return _check_absolute(text, "a directory")


def check_file(text: str) -> str:
    """The same of a file."""
    return _check_absolute(text, "a file")


def check_action(text: str) -> str:
    """One word of ``actions``; raises as ``check_exe``."""
    if text.startswith(SCRIPT):
        name = text.removeprefix(SCRIPT)
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f'"{text}": write the file name of one script, as "script:isolate"')
        return _check_size(text, PATH_BYTES, "a script")
    return _check_word(text, (*ACTIONS, "script:NAME"))


def check_socket(text: str) -> str:
    """One word of ``sockets``; raises as ``check_exe``."""
    return _check_word(text, SOCKETS)


def check_mode(text: str) -> str:
    """``enforce`` or ``observe``; raises as ``check_exe``."""
    return _check_word(text, ("enforce", "observe"))


def check_namespace(text: str) -> str:
    """``host``, which is the default, or ``any``; raises as ``check_exe``."""
    return _check_word(text, ("host", "any"))


def check_actions(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words together; raises as ``check_exe``."""
    refusing = [word for word in words if word in ("block", "kill")]
    if "allow" in words and refusing:
        raise ValueError(f'"allow" contradicts "{refusing[0]}"; drop one of them')
    return words


def as_actions(words: tuple[str, ...]) -> Actions:
    """What checked words mean."""
    names = tuple(dict.fromkeys(w.removeprefix(SCRIPT) for w in words if w.startswith(SCRIPT)))
    return Actions(scripts=names, **{word: word in words for word in ACTIONS})


def _check_absolute(text: str, what: str) -> str:
    if not text.startswith("/") or ".." in PurePosixPath(text).parts:
        raise ValueError(f'"{text}" must be an absolute path without ".."')
    return _check_size(os.path.normpath(text).replace("//", "/"), 4095, what)


def _check_word(text: str, known: tuple[str, ...]) -> str:
    if text in known and text.isalnum():
        return text
    words = ", ".join(f'"{word}"' for word in known)
    raise ValueError(f'"{text[:64]}" is not one of {words}{did_you_mean(text, known)}')


def _check_size(text: str, limit: int, what: str) -> str:
    size = len(os.fsencode(text))
    if not text:
        raise ValueError(f'"" is empty; {what} must stand here')
    if "\0" in text:
        raise ValueError(f"{what} cannot hold a NUL character")
    if size > limit:
        raise ValueError(f"has {size} bytes; {what} may have {limit} at most")
    return text


def looks_like_unit(text: str) -> bool:
    """Whether *text* ends as the units do that systemd makes control groups for."""
    return re.search(r"\.(service|scope|slice|socket|mount|swap)$", text) is not None
