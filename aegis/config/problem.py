# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a policy, and where."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from aegis.errors import AegisError
from aegis.policy.model import Where


class Severity(StrEnum):
    ERROR = "error"  # nothing of the policy is used
    WARNING = "warning"  # used as written, which may not be what was meant


@dataclass(frozen=True)
class Problem:
    """One thing to fix. *key* is dotted (``app.ports``); empty for the file itself."""

    severity: Severity
    where: Where
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.where.file}:{self.where.line}:{self.where.column}"
        return ": ".join(part for part in (place, self.key, self.message) if part)

    def as_json(self) -> dict[str, object]:
        return {
            "severity": str(self.severity),
            "file": self.where.file,
            "line": self.where.line,
            "column": self.where.column,
            "key": self.key,
            "message": self.message,
        }


class PolicyError(AegisError):
    """Every error of every file of a policy; nothing of it may be used.

    As text, the errors, one a line; *problems* holds the warnings too.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        errors = (p for p in self.problems if p.severity is Severity.ERROR)
        super().__init__("\n".join(map(str, errors)))


class Problems:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self.all: list[Problem] = []

    def error(self, where: Where, key: str, message: str) -> None:
        self.all.append(Problem(Severity.ERROR, where, key, message))

    def warn(self, where: Where, key: str, message: str) -> None:
        self.all.append(Problem(Severity.WARNING, where, key, message))

    @property
    def failed(self) -> bool:
        return any(problem.severity is Severity.ERROR for problem in self.all)

    def raise_errors(self) -> None:
        """:raises PolicyError: with everything collected, warnings too, if any is an error."""
        if self.failed:
            raise PolicyError(in_order(self.all))


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return them as one reads: file by file, in the order they came up, line by line."""
    listed = tuple(problems)
    files: dict[str, int] = {}
    for problem in listed:
        files.setdefault(problem.where.file, len(files))
    return tuple(sorted(listed, key=lambda p: (files[p.where.file], p.where.line, p.where.column)))
