# SPDX-License-Identifier: Apache-2.0
"""The support matrix: each kernel Aegis is tested on, and where Debian has it."""

from dataclasses import dataclass

Series = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """A kernel of Debian *suite*, from series *oldest* to *newest* (None: any later one)."""

    name: str
    suite: str
    oldest: Series
    newest: Series | None

    def covers(self, release: str) -> bool:
        """Whether *release*, as ``uname -r`` prints it, is what this row stands for."""
        major, minor = release.split(".")[:2]
        series = (int(major), int(minor))
        return self.oldest <= series and (self.newest is None or series <= self.newest)


KERNELS = (
    Kernel("6.1", suite="bookworm", oldest=(6, 1), newest=(6, 1)),
    Kernel("6.12", suite="trixie", oldest=(6, 12), newest=(6, 12)),
    Kernel("newest", suite="trixie-backports", oldest=(6, 13), newest=None),
)

# The generic kernel: unlike the cloud one it mounts 9p, so a guest shares the host's root
# without virtiofsd, whose Debian 12 version does not work with virtme-ng.
PACKAGE = "linux-image-amd64"

# What runs in a guest. The others are about the language, the harness or the size of a policy,
# and so the same on every kernel; emulated, each of them would take minutes.
NOT_IN_GUESTS = (
    "test_coverage", "test_founding", "test_harness", "test_reload", "test_size",
    "test_transparency",
)  # fmt: skip
