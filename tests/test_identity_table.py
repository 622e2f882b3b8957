# SPDX-License-Identifier: Apache-2.0
"""The identity table is whole: each row has a test that is there and that pytest collects."""

import subprocess
import sys

import pytest

from tests.identity import DOCUMENT, Case, read_table, render
from tests.sentences import ROOT, find_test

TABLE = read_table()
ROWS = [pytest.param(case, id=case.does[:60]) for case in TABLE.cases]

# What issue 4 asks for, each by a word that only its row has.
DEMANDED = (
    "PR_SET_MM_MAP", "its own file over an allowed path", "tmpfs", "overlay", "detached", "memfd",
    "fexecve", "deleted", "renamed onto", "hard link", "symbolic link", "copies", "ld.so",
    "argv[0]", "PR_SET_NAME", "chroot()", "pivot_root()", "container", "while other threads",
    "vfork", "setsid, double fork", "another user after exec", "another cgroup", "before Aegis",
    "millisecond", "200 times", "PrivateTmp", "ProtectSystem", "thread of the kernel",
)  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_row_is_shown(case: Case) -> None:
    """Its tests are there, and it says who does it and what must happen."""
    assert case.shown_by
    assert [missing for node in case.shown_by if (missing := find_test(node))] == []
    assert len(set(case.shown_by)) == len(case.shown_by)
    assert set(case.who.split(" or ")) <= {"anyone", "root"}
    assert case.must.endswith(".")


def test_the_tests_of_all_rows_are_collected() -> None:
    """Under exactly these names: a parameter that is gone, or a file pytest leaves out, fails."""
    nodes = {node for case in TABLE.cases for node in case.shown_by}
    files = sorted({node.partition("::")[0] for node in nodes})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *files]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    collected = set(listed.stdout.splitlines())
    collected |= {node.partition("[")[0] for node in collected}
    assert nodes - collected == set()


@pytest.mark.parametrize("word", DEMANDED)
def test_what_was_asked_for_has_a_row(word: str) -> None:
    """No case of the issue was forgotten."""
    assert any(word in case.does for case in TABLE.cases)


def test_the_document_is_current() -> None:
    """Made by ``python -m tests.identity``; make it anew after a change."""
    assert DOCUMENT.read_text() == render(TABLE)
