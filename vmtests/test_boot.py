# SPDX-License-Identifier: Apache-2.0
"""A Debian under systemd with our package: the short form of two soaks, boot and suspend."""

from vmtests.boot import SHORT, line
from vmtests.conftest import Boots


def test_rules_come_before_the_network_whatever_became_of_the_policy(boots: Boots) -> None:
    """A host just installed, which then is suspended to memory and woken; and the same, once its
    policy's files are broken.
    """
    assert [done.kind for done, _ in boots] == list(SHORT)
    for number, (done, wrong) in enumerate(boots, 1):
        print(line(number, done, wrong))
    assert [wrong for _, wrong in boots] == [[], []]
