# SPDX-License-Identifier: Apache-2.0
"""``aegis=off`` and ``/etc/aegis/off``: the way out of a host that is locked."""

from pathlib import Path

import pytest

from aegis.off import why_off

LINES = [
    pytest.param("BOOT_IMAGE=/vmlinuz root=/dev/sda1 aegis=off quiet\n", True, id="the-word"),
    pytest.param("aegis=off", True, id="alone"),
    pytest.param("root=/dev/sda1 quiet\n", False, id="not-there"),
    pytest.param("aegis=offline noaegis=off", False, id="part-of-another-word"),
    pytest.param("aegis=on\n", False, id="another-value"),
]


@pytest.mark.parametrize(("line", "off"), LINES)
def test_the_word_on_the_kernel_s_command_line(line: str, off: bool, tmp_path: Path) -> None:
    """A whole word, wherever it stands."""
    words = tmp_path / "cmdline"
    words.write_text(line)
    why = why_off(tmp_path / "off", words)
    assert bool(why) is off
    assert "kernel's command line" in why or not off


def test_the_file(tmp_path: Path) -> None:
    """Whatever it is, also a link that leads nowhere; and not once it is gone."""
    words, file = tmp_path / "cmdline", tmp_path / "off"
    words.write_text("quiet\n")
    assert why_off(file, words) == ""
    file.touch()
    assert why_off(file, words) == f"{file} exists"
    file.unlink()
    assert why_off(file, words) == ""
    file.symlink_to("/nowhere")
    assert why_off(file, words) == f"{file} exists"


def test_what_cannot_be_read_is_no_wish(tmp_path: Path) -> None:
    """Else a host without /proc would never be governed."""
    assert why_off(tmp_path / "off", tmp_path / "missing") == ""
