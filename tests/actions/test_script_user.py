# SPDX-License-Identifier: Apache-2.0
"""``script_user``: hook scripts that run as somebody other than root."""

import pwd

import pytest

from tests.actions.conftest import Write
from tests.actions.hooks import Hooks
from tests.actions.processes import PID, processes_of


def test_script_user_has_its_own_groups_and_no_capability(
    hooks: Hooks, write_script: Write
) -> None:
    """Nothing of root's is left: not a uid to go back to, not a group, not a capability."""
    write_script("hook", "#!/bin/sh\ncat /proc/self/status; wc -c </dev/stdin\n")
    nobody = pwd.getpwnam("nobody")
    hooks.settings["script_user"] = nobody.pw_uid
    hooks.run()
    status = dict(line.split(":", 1) for line in hooks.output().splitlines() if ":" in line)
    assert set(status["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(status["Gid"].split()) == {str(nobody.pw_gid)}
    assert status["Groups"].split() in ([], [str(nobody.pw_gid)])
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0
    assert int(hooks.output().split()[-1]) > 500  # the event can be read again by name


@pytest.mark.parametrize("how", ["", "setsid setsid "])
def test_what_script_user_left_behind_ends_too(hooks: Hooks, write_script: Write, how: str) -> None:
    write_script("hook", f"#!/bin/sh\n{how}sleep 64.125{PID} &\nsleep 0.05\nwait\n")
    hooks.settings |= {"script_user": 65534, "script_timeout": 1}
    hooks.run()
    assert processes_of(f"64.125{PID}") == []


@pytest.mark.parametrize("mode", [0o700, 0o754])
def test_a_script_its_user_may_not_run_is_told(
    hooks: Hooks, write_script: Write, mode: int
) -> None:
    write_script("hook", "#!/bin/sh\n").chmod(mode)
    hooks.settings["script_user"] = 65534
    hooks.run()
    assert "script_user must be able to read" in hooks.notice("script-refused")[0]


def test_a_user_that_is_gone_runs_nothing(hooks: Hooks, write_script: Write) -> None:
    """Never as root instead."""
    write_script("hook", "#!/bin/sh\n")
    hooks.settings["script_user"] = 4294967294
    hooks.run()
    assert "has no account" in hooks.notice("script-refused")[0]
