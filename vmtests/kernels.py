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
    processors: int = 1
    without: tuple[str, ...] = ()  # files of tests that run on another kernel, for their time

    def covers(self, release: str) -> bool:
        """Whether *release*, as ``uname -r`` prints it, is what this row stands for."""
        major, minor = release.split(".")[:2]
        series = (int(major), int(minor))
        return self.oldest <= series and (self.newest is None or series <= self.newest)


# Minutes on a slow machine, so on the newest one only: these kernels do not preempt in tracepoints,
# and what guards our objects is the same there. Here by hand.
_ON_THE_NEWEST = ("test_guard", "test_missed")
# One guest has two processors: they take turns (vm.py), each wherever the other was stopped. That
# two are used at once is shown by the machine's own tests.
KERNELS = (
    Kernel("6.1", "bookworm", (6, 1), (6, 1), without=_ON_THE_NEWEST),
    Kernel("6.12", "trixie", (6, 12), (6, 12), processors=2, without=_ON_THE_NEWEST),
    Kernel("newest", "trixie-backports", (6, 13), None),
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
