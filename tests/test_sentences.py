# SPDX-License-Identifier: Apache-2.0
"""Every sentence of the contract is a test, or says which issue makes it one."""

from pathlib import Path

import pytest

from tests.sentences import CONTRACT, SHIPPED, Sentence, find_test, read_table, sentences

TABLE = read_table()
ROWS = [pytest.param(row, id=row.says[:60]) for row in TABLE]


def test_the_contract_is_shipped_as_it_is() -> None:
    """docs/policy-language.md is the contract; where both are at hand they are the same."""
    shipped = SHIPPED.read_text()
    assert shipped.startswith("# The policy language\n\nWhat an administrator writes.")
    if CONTRACT.exists():
        assert shipped == CONTRACT.read_text()


def test_every_sentence_is_shown() -> None:
    """A sentence without a row, be it a new or a changed one, is a test that is missing."""
    told = {row.says for row in TABLE}
    assert [s for s in sentences(SHIPPED.read_text()) if s not in told] == []


def test_nothing_is_shown_that_the_contract_does_not_say() -> None:
    """A row of an earlier wording would count for nothing; twice is once too often."""
    said = sentences(SHIPPED.read_text())
    assert [row.says for row in TABLE] == said
    assert len(set(said)) == len(said) > 140


def test_every_decision_is_a_sentence() -> None:
    """Each **Decided** has a test of its own."""
    decided = [row for row in TABLE if "**Decided**" in row.says]
    assert len(decided) == SHIPPED.read_text().count("**Decided**")
    assert all(row.shown_by for row in decided)


@pytest.mark.parametrize("row", ROWS)
def test_sentence(row: Sentence) -> None:
    """Its tests are there. What another issue carries out is listed, and not as passed."""
    assert [missing for node in row.shown_by if (missing := find_test(node))] == []
    assert row.shown_by or row.issue
    assert len(set(row.shown_by)) == len(row.shown_by)
    if row.issue is not None:
        pytest.xfail(f"issue {row.issue}: {row.says}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Title\nOne. Two\nthree; four.\n", ["One.", "Two three;", "four."]),
        ("* A (b. c; d) e.\n* `f; g.` h.\n2. i", ["A (b. c; d) e.", "`f; g.` h.", "i"]),
        ("(A b. c.)\nD.", ["(A b. c.)", "D."]),
        ("| a. b | c |\n|---|---|\n| d |", ["| a. b | c |", "| d |"]),
        ("Such:\n```toml\n[x]  # y. z\n\na\n```\nEnd.", ["Such:", "[x] # y. z", "a", "End."]),
        ("A 10.0.0.1/8 is `x`.", ["A 10.0.0.1/8 is `x`."]),
    ],
)  # fmt: skip
def test_sentences_are_told_apart(text: str, said: list[str]) -> None:
    """Were the text cut wrongly, a missing test could hide behind another."""
    assert sentences(text) == said


@pytest.mark.parametrize(
    ("node", "missing"),
    [
        ("test_x.py::test_a", None),
        ("test_x.py::test_a[one]", None),
        ("test_x.py::test_a[two]", "test_x.py does not mention 'two'"),
        ("test_x.py::test_b", "test_x.py has no test_b"),
        ("test_x.py::helper", "test_x.py has no helper"),
        ("test_y.py::test_a", "test_y.py is not there"),
    ],
)
def test_a_test_that_is_not_there_is_seen(tmp_path: Path, node: str, missing: str | None) -> None:
    """By reading: what is named need not be run to be found."""
    (tmp_path / "test_x.py").write_text('def test_a(): "one"\ndef helper(): ...\n')
    assert find_test(node, tmp_path) == missing
