# SPDX-License-Identifier: Apache-2.0
"""A file of URLs, which are secrets."""

import pytest

from aegis.policy.targets import parse_targets

FILE = b"""\
# who is told
https://example.com/hook?token=SECRET

  slack://a/b/SECRET/  \r
HTTP://example.com/
"""


def test_each_line_is_a_target() -> None:
    targets = parse_targets(FILE)
    assert [(t.line, t.scheme, t.needs_apprise) for t in targets] == [
        (2, "https", False),
        (4, "slack", True),
        (5, "http", False),
    ]
    assert targets[1].url == "slack://a/b/SECRET/"
    assert len({target.key for target in targets}) == 3


def test_a_target_does_not_show_its_url() -> None:
    """Not even in a traceback."""
    assert "SECRET" not in repr(parse_targets(FILE)) + str(parse_targets(FILE))


@pytest.mark.parametrize("line", ["example.com/SECRET", "https://", "https://a b", "://SECRET"])
def test_what_is_no_url_is_named_by_its_line_alone(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2 is not a URL$"):
        parse_targets(f"# x\n{line}\n".encode())


def test_targets_are_bounded() -> None:
    parse_targets(b"http://a/\n" * 32)
    with pytest.raises(ValueError, match="33 targets; the limit is 32"):
        parse_targets(b"http://a/\n" * 33)
