# SPDX-License-Identifier: Apache-2.0
"""The mutants of the kernel still fit the code they are mutants of."""

import pytest

from tests.mutants import ROOT, Mutant, read_table

MUTANTS = read_table()


def test_there_are_enough_and_each_is_another() -> None:
    """At least twenty of ``decide`` and ``classify``."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
    for file in ("kernel/decide.bpf.h", "kernel/classify.bpf.h"):
        assert sum(mutant.file == file for mutant in MUTANTS) >= 10


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    """Code that has moved on takes its mutants along; what is to kill them is there."""
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    files = [word for word in mutant.killed_by if word.startswith("tests/")]
    assert all((ROOT / file).is_file() for file in files)
