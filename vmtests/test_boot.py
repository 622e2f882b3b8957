# SPDX-License-Identifier: Apache-2.0
"""A Debian under systemd with our package: the short form of two soaks, boot and suspend."""

from vmtests.boot import SHORT, line
from vmtests.conftest import Boots
from vmtests.judge import judge


def test_rules_come_before_the_network_whatever_became_of_the_policy(boots: Boots) -> None:
    """A host just installed; and the same, once its policy's files are broken."""
    assert [done.kind for done, _ in boots] == list(SHORT)
    for number, (done, wrong) in enumerate(boots, 1):
        print(line(number, done, wrong))
    assert [wrong for _, wrong in boots] == [[], []]


def test_a_host_that_was_suspended_goes_on_as_before(boots: Boots) -> None:
    """The one just installed, to memory: verdicts, detent, counters and the agent."""
    (first, _), *_ = boots
    assert judge("nap", first.told)[1] == []
