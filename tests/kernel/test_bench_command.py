# SPDX-License-Identifier: Apache-2.0
"""The command that measures, and the page that is made of what it found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import PAGE, ROOT

CASE = "udp-send"  # the quickest that has rows


def _bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one benchmark, as JSON."""
    path = tmp_path_factory.mktemp("bench") / "result.json"
    finished = _bench(CASE, "--smoke", "--json", path)
    assert finished.returncode == 0, finished.stderr
    assert f"--- {CASE}" in finished.stdout
    return path


def test_what_was_found_is_kept(result: Path) -> None:
    """As JSON that says of which commit and machine, and as a chart beside it."""
    told = json.loads(result.read_text())
    assert list(told["rows"]) == [CASE]
    assert told["about"].keys() >= {"commit", "kernel", "CPUs", "load before", "on", "took"}
    assert result.with_suffix(".svg").read_text().startswith("<svg ")


def test_page_gets_the_figures_and_keeps_its_words(result: Path, tmp_path: Path) -> None:
    """What is between the marks is replaced, nothing else; and the page itself is left alone."""
    page, before = tmp_path / "page.md", PAGE.read_text()
    shutil.copyfile(PAGE, page)
    finished = _bench("render", result, page)
    assert finished.returncode == 0, finished.stderr
    assert PAGE.read_text() == before
    head, rest = page.read_text().split("<!-- measured -->\n")
    figures, tail = rest.split("<!-- end -->\n")
    assert before.startswith(head)
    assert before.endswith(tail)
    rows = [line for line in figures.splitlines() if line.startswith("| unconnected UDP")]
    assert len(rows) == len(json.loads(result.read_text())["rows"][CASE])
    assert page.with_suffix(".svg").exists()


def test_page_without_marks_is_not_written(result: Path, tmp_path: Path) -> None:
    """There is no place for the figures, and what is there would be lost."""
    page = tmp_path / "page.md"
    page.write_text("words\n")
    finished = _bench("render", result, page)
    assert finished.returncode != 0
    assert page.read_text() == "words\n"


def test_benchmark_that_there_is_not_is_named(host: None) -> None:
    finished = _bench("speed", "--smoke")
    assert finished.returncode == 2
    assert "no benchmark speed; there are udp-connect, " in finished.stderr
