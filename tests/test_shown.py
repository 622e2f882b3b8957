# SPDX-License-Identifier: Apache-2.0
"""What of a flood is shown to whom watches."""

import time

import pytest

from aegis.cli.output import SHOWN_MAX, Output


def test_a_flood_is_shown_in_part_and_the_rest_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    output = Output(as_json=False)
    for _ in range(SHOWN_MAX + 7):
        if not output.wants_record():
            output.line("{}")
    output.flush()
    assert capsys.readouterr().out == ""  # the second is not over yet
    now += 1
    output.flush()
    output.flush()
    assert capsys.readouterr().out == "7 more events are in the log only: over 1000 a second\n"
    assert output.wants_record()


def test_json_has_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    for number in range(SHOWN_MAX + 7):
        assert not output.wants_record()
        output.line(f'{{"n":{number}}}')
    output.flush()
    assert len(capsys.readouterr().out.splitlines()) == SHOWN_MAX + 7
