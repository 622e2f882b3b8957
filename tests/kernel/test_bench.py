# SPDX-License-Identifier: Apache-2.0
"""Each benchmark runs; how fast is never a test."""

from collections.abc import Iterator

import pytest

from bench.catalogue import CATALOGUE
from bench.chart import svg
from bench.result import Result, Row
from bench.table import markdown, text_lines
from bench.world import Size, World


@pytest.fixture(scope="module")
def world(host: None) -> Iterator[World]:
    made = World(Size(smoke=True))
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("name", CATALOGUE)
def test_benchmark_runs(name: str, world: World) -> None:
    """It finds something, and that survives JSON and fits the terminal."""
    result = Result({"kernel": "any"})
    for finding in CATALOGUE[name](world):
        result.add(name, finding)
    unable = {each.what: each.why for each in result.unable}
    if name == "peers":  # not every kernel lets them run, but each is spoken of
        assert "picosnitch" in unable
        assert result.rows or unable["bpftrace"] != "not installed"
    else:
        assert result.rows or result.charts
        assert not unable
    told = Result.from_json(result.to_json())
    assert told == result
    rows = [row for rows in told.rows.values() for row in rows]
    assert max((len(line) for line in text_lines(name, rows)), default=0) <= 80
    assert sum(line.startswith("| ") for line in markdown(told)) >= len(rows)
    assert svg(told).startswith("<svg ")
    assert all(isinstance(row, Row) and row.low <= row.median <= row.high for row in rows)
