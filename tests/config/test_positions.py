# SPDX-License-Identifier: Apache-2.0
"""Every key and array element is found at the line and column it was written at."""

import pytest
import tomli
from hypothesis import given, settings

from aegis.config.positions import Positions
from tests.config.documents import Path, documents


def paths_of(value: object, path: Path = ()) -> set[Path]:
    """Every path of a parsed document."""
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found: set[Path] = set()
    for step, inner in items:
        found |= {(*path, step)} | paths_of(inner, (*path, step))
    return found


@settings(max_examples=150, deadline=None)
@given(documents())
def test_random_documents(document: tuple[str, dict[Path, int]]) -> None:
    """All that tomli finds has a place, nothing else has, and each place is the true one."""
    text, offsets = document
    positions = Positions(text)
    assert set(positions.paths()) == paths_of(tomli.loads(text)) == set(offsets)
    for path, offset in offsets.items():
        line = text.count("\n", 0, offset) + 1
        column = offset - (text.rfind("\n", 0, offset) + 1) + 1
        assert positions.of(*path) == (line, column)


def test_app_tables_count_from_the_first() -> None:
    """The second [[app]] is found at its own header, and its elements at theirs."""
    text = '[[app]]\nexe = "a"\n\n[[app]]\nports = [\n  "1",\n  "2", # "3"\n]\n'
    positions = Positions(text)
    assert positions.of("app", 1) == (4, 1)
    assert positions.of("app", 1, "ports", 1) == (7, 3)


def test_what_was_not_written_is_placed_at_what_surrounds_it() -> None:
    """A missing key is reported at its table, a missing table at the top of the file."""
    positions = Positions('\n\n[[app]]\nexe = "a"\n')
    assert positions.of("app", 0, "ports", 3) == (3, 1)
    assert positions.of("global") == (1, 1)


def test_deep_nesting_neither_recurses_nor_grows_quadratically() -> None:
    """Nesting beyond Python's recursion limit is scanned like anything else."""
    depth = 20_000
    positions = Positions("a = " + "[" * depth + "]" * depth)
    assert positions.of("a", *[0] * (depth - 1)) == (1, 4 + depth)


def test_text_tomli_refuses_is_a_defect_here() -> None:
    """The scanner never guesses: text it should not have been given stops it."""
    with pytest.raises(AssertionError):
        Positions("a = [1, ")
    with pytest.raises(AssertionError):
        Positions("[!]")
