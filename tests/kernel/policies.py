# SPDX-License-Identifier: Apache-2.0
"""Policies as files, and a way to find a rule's line in them."""

import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = "aegis-fence"

# The fence reports each of its connections in every mode: see Agent.settled_events.
# This Python serves and marks time; attached at the root cgroup it is judged too.
_HARNESS_RULES = f"""
[[app]]
exe = "{Path(sys.executable).resolve().name}"
ignore = true

[[app]]
exe = "{FENCE}"
ports = []
strict = true
detent = 0
actions = ["log"]
"""


# Tests kill more in a minute than a host should.
_BUDGET = "[global]\nkill_budget = 100000\n"


@dataclass(frozen=True)
class PolicyFile:
    """A written policy."""

    path: Path

    def rule(self, selector: str) -> str:
        """``file:line`` of the ``[[app]]`` that holds the line *selector*."""
        header = 0
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            if line.strip() == "[[app]]":
                header = number
            if line.strip() == selector:
                return f"{self.path}:{header}"
        raise LookupError(selector)

    def replace(self, text: str) -> bool:
        """Write another policy in its place; whether it is another one."""
        text = _with_budget(text) + _HARNESS_RULES
        if self.path.exists() and self.path.read_text() == text:
            return False
        _write(self.path, text)
        return True


def _with_budget(text: str) -> str:
    if "kill_budget" in text:
        return text
    return text.replace("[global]\n", _BUDGET, 1) if "[global]\n" in text else _BUDGET + text


def write_policy(folder: Path, text: str) -> PolicyFile:
    """Write *text*, and the rules of the harness, to a new policy in *folder*."""
    policy = PolicyFile(folder / "aegis.toml")
    policy.replace(text)
    return policy


def write_drop_in(folder: Path, name: str, text: str) -> PolicyFile:
    path = folder / name
    _write(path, text)
    return PolicyFile(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
