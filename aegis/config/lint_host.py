# SPDX-License-Identifier: Apache-2.0
"""What the files of this host say about a rule: missing, a link, a script, untrusted."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from aegis.config.lint_rule import Finding
from aegis.policy.match import needs_trust
from aegis.policy.model import KERNEL, Rule

DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/libexec",
)
"""Where a base name is looked for."""


def lint_file(rule: Rule, directories: tuple[str, ...] = DIRECTORIES) -> Iterator[Finding]:
    """Yield what the files that *rule* names, as far as they are on this host, are wrong for."""
    want = rule.selectors
    if want.path == KERNEL:
        return
    if want.path is not None:
        yield from _lint_path(want.path)
    elif want.exe is not None:
        yield from _lint_exe(rule, want.exe, directories)
    elif want.cmdline is not None and want.cmdline.startswith("/"):
        yield from _lint_cmdline(rule, want.cmdline.split(" ")[0])


def _lint_path(path: str) -> Iterator[Finding]:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        yield "path", f"{path} does not exist on this host"
        return
    except OSError:  # no permission to look: nothing can be said
        return
    if not stat.S_ISREG(status.st_mode):
        yield "path", f"can never match: {path} is not a file"
    elif not status.st_mode & 0o111:
        yield "path", f"can never match: {path} is not executable"
    elif is_script(path):
        message = (
            f'can never match: {path} is a script, run by another file; use cmdline = "{path}"'
        )
        yield "path", message


def _lint_exe(rule: Rule, exe: str, directories: tuple[str, ...]) -> Iterator[Finding]:
    found = {os.path.realpath(path) for path in _find(exe, directories)}
    if not found:
        return
    own = {path for path in found if Path(path).name == exe}
    if not own:
        target = sorted(found)[0]
        message = f'can never match: {exe} is a link to {target}; use exe = "{Path(target).name}"'
        yield "exe", message
    elif all(map(is_script, own)):
        script = sorted(own)[0]
        yield "exe", f'can never match: {script} is a script; use cmdline = "{script}"'
    elif needs_trust(rule) and all(_untrusted(path) for path in own):
        yield "exe", _explain_untrusted(sorted(own)[0])


def _lint_cmdline(rule: Rule, program: str) -> Iterator[Finding]:
    if needs_trust(rule) and not is_script(program) and _untrusted(program):
        yield "cmdline", _explain_untrusted(program)


def _find(exe: str, directories: tuple[str, ...]) -> Iterator[str]:
    for directory in directories:
        path = Path(directory) / exe
        if os.access(path, os.X_OK) and path.is_file():
            yield str(path)


def is_script(path: str) -> bool:
    """Whether the kernel would run an interpreter for it; False when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _untrusted(path: str) -> bool:
    """Whether *path* is there, and somebody but root may write it."""
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return status.st_uid != 0 or bool(status.st_mode & 0o022)


def _explain_untrusted(path: str) -> str:
    status = Path(path).stat()
    mode = stat.S_IMODE(status.st_mode)
    return (
        f"{path} is not root's alone (owner {status.st_uid}, mode {mode:04o}): it gets the"
        " restrictions of this rule, not its permissions; use path, or untrusted_file = true"
    )
