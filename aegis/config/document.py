# SPDX-License-Identifier: Apache-2.0
"""One TOML file: what it says, and where each word of it stands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from aegis.config.positions import Positions, Step
from aegis.config.problem import Problems
from aegis.policy.model import Where

_PLACE = re.compile(r"^(?P<reason>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|.*)\)$")


@dataclass(frozen=True)
class Document:
    """A parsed file. *drop_in*: an ``[[app]]`` may take its program from the file name."""

    file: str
    data: dict[str, Any]
    positions: Positions
    drop_in: bool

    def where(self, *path: Step) -> Where:
        """The place of *path*, or of the nearest thing around it that was written."""
        return Where(self.file, *self.positions.of(*path))

    def where_elements(self, path: tuple[Step, ...], count: int) -> Iterator[Where]:
        """The place of each of the *count* elements of the list at *path*."""
        for line, column in self.positions.of_elements(path, count):
            yield Where(self.file, line, column)


def parse_document(
    file: str, content: bytes, problems: Problems, *, drop_in: bool
) -> Document | None:
    """Parse one file; what is wrong goes to *problems*, and then there is no document."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line, column = _place_of(content[: error.start].decode())
        message = f"not UTF-8: byte 0x{content[error.start]:02x}"
        problems.error(Where(file, line, column), "", message)
        return None
    if text.startswith("\ufeff"):
        problems.error(Where(file, 1), "", "begins with a byte order mark; save it without")
        return None
    try:
        data = tomli.loads(text)
    except RecursionError:
        problems.error(Where(file, 1), "", "nested too deeply")
    except ValueError as error:  # TOMLDecodeError, or an integer of over 4300 digits
        problems.error(*_explain(file, text, str(error)))
    else:
        return Document(file, data, Positions(text), drop_in)
    return None


def _explain(file: str, text: str, message: str) -> tuple[Where, str, str]:
    """tomli before 2.2 gives the place in the message only; newer ones there as well."""
    match = _PLACE.match(message)
    if match and match["line"]:
        where = Where(file, int(match["line"]), int(match["column"]))
        reason = match["reason"]
    else:
        where = Where(file, *_place_of(text))
        reason = match["reason"] + " at the end of the file" if match else message
    return where, "", f"not TOML: {reason[0].lower()}{reason[1:]}{_hint(text, where.line)}"


def _hint(text: str, line: int) -> str:
    """The mistakes that are made most, from the line tomli stopped at."""
    wrong = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    if re.match(r"\s*[\w-]+\s*=\s*(?!true|false)[A-Za-z/]", wrong):
        return '; text must stand in quotes, as in exe = "telegraf"'
    if re.match(r"\s*[\w-]+\s*:", wrong):
        return "; write key = value"
    return ""


def _place_of(before: str) -> tuple[int, int]:
    """Line and column of what follows *before*."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def name_of(file: str) -> str:
    """The program a drop-in is named after; empty when the name says nothing.

    ``telegraf.toml`` and ``zz-telegraf.toml`` are both about ``telegraf``.
    """
    return re.sub(r"^(?:[0-9]+|zz)-", "", Path(file).name.removesuffix(".toml"))
