# SPDX-License-Identifier: Apache-2.0
"""Events as ``aegis.bpf`` would make them."""

from ipaddress import ip_address
from typing import Any

from aegis.events.event import Event, IdentityFlag
from aegis.policy.model import Actions, Direction, Mode, Reason, Scope, Verdict

HOSTILE = [
    "plain",
    "new\nline",
    "cr\rtab\t",
    ") 1 (",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m\x85",
    "\u202etxt.exe\u2066\u2069",
    "zero\u200bwidth\ufeff\u2028\u2029",
    "\x7f\x01\x00",
    "\udcff\udc80\udcfe",  # undecodable bytes, as os.fsdecode gives them
    "\ud800 lone",
    "/usr/bin/x (deleted)",
    '"quote\\back',
    "$(touch /tmp/canary) `id` ${IFS} %41",
    "日本語 \U0001f600",
    "-rf",
]


def make_event(**changes: Any) -> Event:
    """Return curl's refused connection to 192.0.2.7:443, with *changes*."""
    fields: dict[str, Any] = {
        "boot_ns": 90_000_000_000,
        "start_boot_ns": 80_000_000_000,
        "exec_boot_ns": 80_500_000_000,
        "generation": 3,
        "pid": 4242,
        "ppid": 4000,
        "uid": 0,
        "path": "/usr/bin/curl",
        "argv": ("curl", "-s", "https://192.0.2.7/"),
        "identity": IdentityFlag.HOST_FS | IdentityFlag.TRUSTED,
        "device": 0x800001,
        "inode": 1234,
        "cgroup_id": 77,
        "unit": "cron.service",
        "hook": "connect",
        "direction": Direction.OUT,
        "transport": "tcp",
        "scope": Scope.REMOTE,
        "verdict": Verdict.BLOCKED,
        "reason": Reason.RULE_DENIES,
        "mode": Mode.ENFORCE,
        "destination": ip_address("192.0.2.7"),
        "destination_port": 443,
        "source": None,
        "source_port": 0,
        "suppressed": 0,
        "silent": False,
        "kill": None,
        "rule": "/etc/aegis.d/curl.toml:3",
        "actions": Actions(log=True, block=True),
    }
    return Event(**{**fields, **changes})
