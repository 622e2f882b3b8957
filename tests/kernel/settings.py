# SPDX-License-Identifier: Apache-2.0
"""How the kernel tests are asked to run; the environment is read here only."""

import os

from tests.pace import HUNG_S

# In a virtual machine of our own the agent is attached at the root cgroup.
AT_ROOT = os.environ.get("AEGIS_TEST_ROOT") == "1"

# Missing root, BTF or a tool is a failure and not a reason to skip.
REQUIRED = os.environ.get("AEGIS_KERNEL_TESTS") == "1"

# Commands of Aegis are copies of the test run, see forked.py.
FORKED = os.environ.get("AEGIS_TEST_FORKED") == "1"

# A file that gets a line for each test as it ends; empty: none.
PROGRESS = os.environ.get("AEGIS_TEST_PROGRESS", "")

# UDP connects of the flood test. 1000000 is the figure the project promises for.
FLOOD = int(os.environ.get("AEGIS_TEST_FLOOD", "10000" if AT_ROOT else "200000"))

# UDP connects of one program that floods in the background, see flooding.py.
BURST = 2000 if AT_ROOT else 20000

# Seconds before a step is called hung: a machine may have much else to do.
PATIENCE = HUNG_S * (2 if AT_ROOT else 1)

# Seconds that what is done at once may take, which is a claim. Emulated processors are slow.
AT_ONCE = 30.0 if AT_ROOT else 5.0

# Nobody's files and rights: an unprivileged user that exists everywhere.
NOBODY = 65534
