# SPDX-License-Identifier: Apache-2.0
"""Events about processes that really live."""

import os
from pathlib import Path
from typing import Any

from aegis.actions.kill import Killer, KillResult
from aegis.events.event import Event
from aegis.policy.model import Settings
from tests.events.factory import make_event

TICK_NS = 10_000_000


def event_of(pid: int, **changes: Any) -> Event:
    """Return an event as the kernel would have made it of living process *pid*."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    exe = os.stat(f"/proc/{pid}/exe")  # noqa: PTH116
    seen = {
        "pid": pid,
        # The kernel knows nanoseconds where /proc shows ticks.
        "start_boot_ns": int(fields[19]) * TICK_NS + 1_234_567,
        "device": os.major(exe.st_dev) << 20 | os.minor(exe.st_dev),
        "inode": exe.st_ino,
    }
    return make_event(**{**seen, **changes})


def kill_process(event: Event) -> KillResult:
    """Kill by the defaults."""
    return Killer(Settings()).kill(event)
