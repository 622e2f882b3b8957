# SPDX-License-Identifier: Apache-2.0
"""What a hostile name turns into on a terminal, in an environment and in JSON."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.events.text import ENV_VALUE_MAX, env_value, exact_hex, json_text, printable

anything = st.binary(max_size=200).map(os.fsdecode) | st.text(
    st.characters(exclude_categories=()), max_size=200
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("/usr/bin/curl -s", "/usr/bin/curl -s", id="plain"),
        pytest.param("Grüße 日本", "Grüße 日本", id="visible-unicode-stays"),
        pytest.param("a\nb\r\tc", r"a\x0ab\x0d\x09c", id="C0"),
        pytest.param("\x1b[31mred\x07", r"\x1b[31mred\x07", id="ansi"),
        pytest.param("\x7f", r"\x7f", id="DEL"),
        pytest.param("\x9b31m", r"\u009b31m", id="C1"),
        pytest.param("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066", id="bidi"),
        pytest.param("cu\u200brl\ufeff", r"cu\u200brl\ufeff", id="zero-width"),
        pytest.param("a\u2028b\xa0c", r"a\u2028b\u00a0c", id="separators"),
        pytest.param("x\u3164y\ufe0f", r"x\u3164y\ufe0f", id="blank-letters"),
        pytest.param("\U000e0041", r"\U000e0041", id="tag-characters"),
        pytest.param(os.fsdecode(b"\xff\x9b"), r"\xff\x9b", id="undecodable-bytes"),
        pytest.param("\ud800", r"\ud800", id="other-surrogate"),
        pytest.param(r"\x1b", r"\\x1b", id="backslash-is-not-ambiguous"),
    ],
)
def test_terminal_shows_text_without_obeying_it(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(anything)
def test_nothing_printed_can_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"}
    shown.encode("utf-8")  # no surrogate left


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("curl --x y", "curl --x y", id="plain"),
        pytest.param("-rf", "%2Drf", id="leading-dash"),
        pytest.param("a-b", "a-b", id="inner-dash"),
        pytest.param("x[$(id)]", "x[%24(id)]", id="command-substitution"),
        pytest.param("`id`", "%60id%60", id="backquote"),
        pytest.param("a\\b%c", "a%5Cb%25c", id="backslash-percent"),
        pytest.param("a\nb\x7f", "a%0Ab%7F", id="control"),
        pytest.param("ü", "%C3%BC", id="utf-8-bytes"),
        pytest.param(os.fsdecode(b"\xff"), "%FF", id="undecodable"),
        pytest.param("", "", id="empty"),
    ],
)
def test_environment_value_is_encoded(text: str, value: str) -> None:
    assert env_value(text) == value


@given(anything, st.integers(0, 3))
def test_environment_value_is_short_safe_ascii(text: str, pad: int) -> None:
    """Whatever the text: printable ASCII, no shell character, whole escapes, 4 KiB."""
    for long in (text, "x" * pad + text * 200):
        value = env_value(long)
        assert value.isascii() and (value.isprintable() or not value)
        assert not set(value) & set("$`\\\n") and not value.startswith("-")
        assert len(value) <= ENV_VALUE_MAX
        for escape in value.split("%")[1:]:
            int(escape[:2], 16)
            assert len(escape) >= 2


def test_environment_value_of_two_mebibytes_is_cut_to_whole_escapes() -> None:
    assert env_value("ab" + "ü" * 2**20) == "ab" + "%C3%BC" * 682 + ""
    assert env_value("x" * 2**21) == "x" * ENV_VALUE_MAX


@pytest.mark.parametrize(
    ("text", "shown", "exact"),
    [
        pytest.param("plain", "plain", None, id="ascii"),
        pytest.param("ü\u202e", "ü\u202e", None, id="unicode-is-exact"),
        pytest.param(os.fsdecode(b"a\xffb"), "a\ufffdb", "61ff62", id="undecodable"),
        pytest.param("\ufffd", "\ufffd", None, id="a-real-replacement-character"),
        pytest.param("\ud800", "\ufffd", "eda080", id="other-surrogate"),
    ],
)
def test_json_text_and_the_bytes_it_lost(text: str, shown: str, exact: str | None) -> None:
    assert json_text(text) == shown
    assert exact_hex(text) == exact


@given(st.binary(max_size=300))
def test_exact_hex_gives_back_every_byte(raw: bytes) -> None:
    text = os.fsdecode(raw)
    assert bytes.fromhex(exact_hex(text) or json_text(text).encode().hex()) == raw
