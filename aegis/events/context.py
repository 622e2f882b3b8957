# SPDX-License-Identifier: Apache-2.0
"""What an event needs beside itself: this host, this run, wall clock and names."""

import os
import pwd
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from aegis.policy.model import Address

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STEP_NS = 1_000_000  # below this a new offset is only the jitter of two clock reads
_READS = 8
_USER_TTL_S = 300.0
_USERS_MAX = 4096


class Context:
    """Made once an agent run; numbers every record of it.

    *names*: address → the host name a rule gives it; replaced by the agent
    whenever names were resolved anew.
    """

    def __init__(self, names: Mapping[Address, str] | None = None) -> None:
        self.names: Mapping[Address, str] = names or {}
        self.host = os.uname().nodename
        # The random part keeps two runs of one boot apart, and makes an id
        # nobody can guess who has not been shown it (script.py relies on that).
        self.run_id = f"{_BOOT_ID.read_text()[:8]}-{secrets.token_hex(4)}"
        self._sequence = 0
        self._offset_ns = 0
        self._users: dict[int, tuple[float, str | None]] = {}

    def next_sequence(self) -> int:
        """Return 1, 2, 3, …"""
        self._sequence += 1
        return self._sequence

    def wall_time(self, boot_ns: int | None = None) -> str:
        """Return CLOCK_BOOTTIME *boot_ns* (None: now) as ISO 8601 in UTC.

        Follows a clock that is set, yet gives one process one start time.
        """
        now_ns, offset_ns = self.clock()
        return stamp_of(offset_ns + (now_ns if boot_ns is None else boot_ns))

    def clock(self) -> tuple[int, int]:
        """Return CLOCK_BOOTTIME now, and what makes wall clock time of it; nanoseconds."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        offset_ns = time.time_ns() - now_ns
        if abs(offset_ns - self._offset_ns) > _STEP_NS:
            # Set, or we were interrupted between the two: the quickest of some reads tells.
            _, offset_ns = min(_read_clocks() for _ in range(_READS))
            if abs(offset_ns - self._offset_ns) > _STEP_NS:
                self._offset_ns = offset_ns
        return now_ns, self._offset_ns

    def user_name(self, uid: int) -> str | None:
        """Return the name of *uid*, remembered for five minutes; None: nobody's."""
        now = time.monotonic()
        known = self._users.get(uid)
        if known is not None and now < known[0]:
            return known[1]
        if len(self._users) >= _USERS_MAX:
            self._users.clear()
        try:
            name = pwd.getpwuid(uid).pw_name
        except (KeyError, OverflowError):
            name = None
        self._users[uid] = (now + _USER_TTL_S, name)
        return name


def _read_clocks() -> tuple[int, int]:
    """How long it took, and what makes wall clock time of CLOCK_BOOTTIME; nanoseconds."""
    begun_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    wall_ns = time.time_ns()
    took_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - begun_ns
    return took_ns, wall_ns - begun_ns


def stamp_of(wall_ns: int) -> str:
    """Return wall clock time *wall_ns* as ISO 8601 in UTC."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    return f"{_stamp(seconds)}.{rest_ns // 1000:06d}Z"


@lru_cache(maxsize=256)  # many events a second, from few processes
def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
