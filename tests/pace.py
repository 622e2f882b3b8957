# SPDX-License-Identifier: Apache-2.0
"""How long is waited for what makes no claim to be quick."""

# Before something is called hung. Nobody waits in vain for what goes as it should.
HUNG_S = 120.0
