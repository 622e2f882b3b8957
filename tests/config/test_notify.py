# SPDX-License-Identifier: Apache-2.0
"""``[notify]``: its keys, its file of URLs, and what it needs."""

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from aegis.config.load import load_policy
from aegis.config.problem import PolicyError, Problem
from aegis.policy.model import Notify
from aegis.trust import Trust
from tests.config.conftest import Etc


@pytest.fixture
def urls(etc: Etc) -> Path:
    path = etc.top / "notify.urls"
    path.write_text("https://example.com/SECRET\n")
    path.chmod(0o600)
    etc.main(f'[notify]\nurls_file = "{path}"\n')
    return path


def check(etc: Etc) -> list[str]:
    """What is said of the policy when owners and modes count."""
    problems: Iterable[Problem]
    try:
        problems = load_policy(etc.main_file, trust=Trust(os.geteuid(), str(etc.top))).warnings
    except PolicyError as error:
        problems = error.problems
    found = [etc.bare(str(problem)) for problem in problems]
    assert "SECRET" not in str(found)
    return [text.removeprefix("aegis.toml:5:1: notify.urls_file: ") for text in found]


def test_nobody_is_notified_unless_told(etc: Etc) -> None:
    assert etc.load().policy.notify == Notify(None, 20, 5, 300, 65534)


def test_the_last_word_of_each_key_is_in_force(etc: Etc) -> None:
    etc.main('[notify]\nurls_file = "/etc/aegis//a"\nlimit = 3\nuser = "root"\n')
    etc.drop_in("x.toml", "[notify]\nlimit = 4\nrule_limit = 2\nwindow = 60\n")
    assert etc.load().policy.notify == Notify("/etc/aegis/a", 4, 2, 60, 0)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('urls = "/x"', "notify.urls: is not a key of [notify]"),
        ('urls_file = "x"', 'notify.urls_file: "x" must be an absolute path'),
        ("limit = 0", "notify.limit: must be at least 1"),
        ("rule_limit = 0", "notify.rule_limit: must be at least 1"),
        ("window = 86401", "notify.window: must be at most 86400"),
        ('user = "noboddy"', 'notify.user: there is no user "noboddy"; did you mean'),
    ],
)
def test_a_wrong_key_is_an_error(etc: Etc, text: str, error: str) -> None:
    [found] = etc.lone_errors(f"[notify]\n{text}")
    assert found.split(": ", 1)[1].startswith(error)


def test_a_file_of_root_alone_is_fine(etc: Etc, urls: Path) -> None:
    assert check(etc) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_open_to_others_is_an_error(etc: Etc, urls: Path, mode: int) -> None:
    urls.chmod(mode)
    [problem] = check(etc)
    assert problem.startswith("notify.urls is ") and f"(mode {mode:04o})" in problem


def test_a_line_that_is_no_url_is_an_error(etc: Etc, urls: Path) -> None:
    urls.write_text("# x\nSECRET\n")
    assert check(etc) == ["notify.urls: line 2 is not a URL"]


def test_a_missing_file_is_only_a_warning(etc: Etc, urls: Path) -> None:
    """A policy that refuses must be in force, whether or not anybody is told."""
    urls.unlink()
    reason = "No such file or directory; nobody is notified"
    assert check(etc) == [f"notify.urls cannot be read: {reason}"]


def test_check_says_when_apprise_is_missing(
    etc: Etc, urls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert check(etc) == []  # a webhook needs none
    urls.write_text("https://a/SECRET\nslack://SECRET\nmailto://SECRET\n")
    assert check(etc) == [
        "notify.urls: lines 2, 3 need apprise, which is not installed: apt install apprise"
    ]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert check(etc) == []
