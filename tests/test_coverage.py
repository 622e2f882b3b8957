# SPDX-License-Identifier: Apache-2.0
"""The matrix's table and its document; tests/kernel/test_coverage.py says whether it is true."""

import pytest

from tests.coverage import DOCUMENT, MODES, Way, kernel_of, kernels, read_ways, render, take

WAYS = read_ways()
TEXT = """\
# head

[[way]]
name = "tcp"
on."6.1" = ["through", "through", "through", "through"]

[[way]]
name = "udp"
"""


def test_the_document_is_of_this_table() -> None:
    """Else: python -m tests.coverage render."""
    assert DOCUMENT.read_text() == render(WAYS)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_way_has_a_row_for_each_kernel(way: Way) -> None:
    """What was never measured is not known; a missing row would read as if it were."""
    assert set(way.on) == set(kernels(WAYS))


def test_names_are_of_one_way_each() -> None:
    assert len({way.name for way in WAYS}) == len({way.says for way in WAYS}) == len(WAYS)


@pytest.mark.parametrize(
    ("release", "kernel"),
    [
        pytest.param("6.1.0-50-amd64", "6.1", id="itself"),
        pytest.param("6.12.117+deb13-amd64", "6.12", id="not-6.1"),
        pytest.param("6.8.0", "6.1", id="the-next-older"),
        pytest.param("7.0", "6.12", id="newer-than-all"),
        pytest.param("5.15.0", "6.1", id="older-than-all"),
    ],
)
def test_a_kernel_is_measured_against(release: str, kernel: str) -> None:
    """Numbers are compared as numbers: 6.12 is newer than 6.8."""
    assert kernel_of(release, ("6.1", "6.12")) == kernel


def way(name: str, **on: list[str]) -> Way:
    cells = {
        kernel.replace("_", "."): dict(zip(MODES, row, strict=True)) for kernel, row in on.items()
    }
    return Way(name, name, name, "out", name, "198.51.100.1", on=cells)


def test_what_is_neither_stopped_nor_seen_is_said_twice() -> None:
    """Bold in its row, and in the list at the end; what is stopped is in neither."""
    stopped = ["through", "EPERM connect", "SIGKILL connect", "through connect"]
    text = render(
        (
            way("tcp", **{"6_1": stopped, "6_12": stopped}),
            way("raw", **{"6_1": ["through"] * 4, "6_12": ["absent"] * 4}),
        )
    )
    assert (
        "| tcp | all | through | EPERM (connect) | SIGKILL (connect) | through (connect) |" in text
    )
    unseen = "**through, not seen**"
    assert f"| raw | 6.1 | through | {unseen} | {unseen} | {unseen} |" in text
    assert "| raw | 6.12 | absent | absent | absent | absent |" in text
    listed = text.partition("## What is not stopped")[2]
    assert "| raw | 6.1 | not seen |" in listed
    assert "| tcp" not in listed


def test_what_was_measured_replaces_and_adds_rows() -> None:
    """Kernels in order; nothing else of the table is touched."""
    row = ["through", "EPERM connect", "SIGKILL connect", "through connect"]
    taken = take(TEXT, {("tcp", "6.1"): row, ("udp", "6.12"): row, ("udp", "6.1"): row})
    written = '= ["through", "EPERM connect", "SIGKILL connect", "through connect"]'
    assert taken.splitlines()[3:5] == ['name = "tcp"', f'on."6.1" {written}']
    assert taken.splitlines()[7:] == ['name = "udp"', f'on."6.1" {written}', f'on."6.12" {written}']
    assert take(TEXT, {}) == TEXT


def test_a_measured_way_the_table_does_not_have_is_an_error() -> None:
    with pytest.raises(AssertionError, match="sctp"):
        take(TEXT, {("sctp", "6.1"): ["through"] * 4})
