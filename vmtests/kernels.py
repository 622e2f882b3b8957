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
    without: tuple[str, ...] = ()  # files of tests that run on another kernel, for their time

    def covers(self, release: str) -> bool:
        """Whether *release*, as ``uname -r`` prints it, is what this row stands for."""
        major, minor = release.split(".")[:2]
        series = (int(major), int(minor))
        return self.oldest <= series and (self.newest is None or series <= self.newest)


# Minutes on a slow machine, about what these kernels do not do (preempt in tracepoints) or is
# shown on the newest one; here by hand.
_ON_THE_NEWEST = ("test_guard", "test_missed")
KERNELS = (
    Kernel("6.1", suite="bookworm", oldest=(6, 1), newest=(6, 1), without=_ON_THE_NEWEST),
    Kernel("6.12", suite="trixie", oldest=(6, 12), newest=(6, 12), without=_ON_THE_NEWEST),
    Kernel("newest", suite="trixie-backports", oldest=(6, 13), newest=None),
)

# The generic kernel: unlike the cloud one it mounts 9p, so a guest shares the host's root
# without virtiofsd, whose Debian 12 version does not work with virtme-ng.
PACKAGE = "linux-image-amd64"

# Not what runs in a guest: about the language, the agent's own process, the harness or the size
# of a policy, and so the same on every kernel; emulated, each would take minutes. That lists are
# looked up alike on each kernel, test_prove shows there. Some only for their time, which is to be
# found: what starts an agent for each test (10 s each): by hand.
NOT_IN_GUESTS = (
    "test_adopt", "test_bench", "test_bench_command", "test_boot", "test_destinations",
    "test_detent", "test_early", "test_env_script", "test_event_texts", "test_evidence",
    "test_existing", "test_founding",
    "test_generations", "test_guard_lacking", "test_handover", "test_harness", "test_history",
    "test_history_faults", "test_keys", "test_kill_limits", "test_life", "test_lockout",
    "test_log", "test_metrics", "test_names", "test_neighbour", "test_notify", "test_observe",
    "test_off", "test_output", "test_parts", "test_privileges", "test_reload", "test_size",
    "test_status_coverage", "test_transparency", "test_trial_tables", "test_unconfirmed",
)  # fmt: skip
