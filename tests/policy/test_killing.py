# SPDX-License-Identifier: Apache-2.0
"""Which programs are never killed, and when the agent therefore has to look first."""

import pytest

from aegis.policy.killing import is_never_killed, refine_kill
from aegis.policy.model import Actions, Selectors, Settings

LISTED = ("sshd", "/opt/app/bin/server")
KILL = Actions(log=True, kill=True)


@pytest.mark.parametrize(
    ("path", "trusted", "never"),
    [
        ("/usr/sbin/sshd", True, True),
        ("/tmp/sshd", False, False),  # noqa: S108 (anybody may name a file so)
        ("/usr/sbin/sshd-session", True, False),
        ("/opt/app/bin/server", False, True),
        ("/usr/bin/server", True, False),
        ("", True, False),
    ],
)
def test_a_base_name_is_of_root_s_files_and_a_path_is_itself(
    path: str, trusted: bool, never: bool
) -> None:
    assert is_never_killed(path, LISTED, trusted=trusted) is never


@pytest.mark.parametrize(
    ("selectors", "looks"),
    [
        (Selectors(exe="curl"), False),
        (Selectors(exe="sshd"), True),
        (Selectors(exe="server"), True),  # it may be the listed path
        (Selectors(path="/usr/bin/curl"), False),
        (Selectors(path="/opt/app/bin/server"), True),
        (Selectors(path="/usr/local/bin/sshd"), True),
        (Selectors(path="/usr/bin/server", exe="server"), False),
        (Selectors(user=1000), True),  # any program of the user
        (Selectors(cmdline="/x", unit="a.service"), True),
        (None, True),
    ],
)
def test_the_agent_looks_where_a_listed_program_may_be_met(
    selectors: Selectors | None, looks: bool
) -> None:
    """The kernel must not have killed it by then."""
    settings = Settings(never_kill=LISTED)
    assert refine_kill(KILL, selectors, settings, tree=False).agent_kills is looks
    assert not refine_kill(KILL, selectors, Settings(), tree=False).agent_kills


def test_descendants_are_found_by_the_agent_only() -> None:
    refined = refine_kill(KILL, Selectors(exe="x"), Settings(), tree=True)
    assert (refined.kill_tree, refined.agent_kills) == (True, True)
    assert refine_kill(Actions(block=True), None, Settings(), tree=True) == Actions(block=True)
