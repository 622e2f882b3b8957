# SPDX-License-Identifier: Apache-2.0
"""How long something may take: what is only waited for, and what is claimed to be quick."""

import os

# Before something is called hung. Nobody waits in vain for what goes as it should.
HUNG_S = 120.0


def at_most(seconds: float) -> float:
    """*seconds* on a machine that has nothing else to do.

    As many times more as there is work for each of its processors: a claim about speed is about
    what we do, not about what others do meanwhile.
    """
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
