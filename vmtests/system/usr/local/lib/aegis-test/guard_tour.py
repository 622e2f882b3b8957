# SPDX-License-Identifier: Apache-2.0
"""``tamper_guard`` under systemd: who is Aegis there, what others are refused, the ways out."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tour import LOG, knock, main_pid, run, state, until

PIN = Path("/sys/fs/bpf/aegis/root")
OFF = Path("/etc/aegis/off")
CGROUP = Path("/sys/fs/cgroup/system.slice/aegis.service/cgroup.procs")
# A child of PID 1 that goes where Aegis is.
INTRUDER = """
import os, signal, sys
open("{cgroup}", "w").write(str(os.getpid()))
{execute}
try:
    os.kill({pid}, signal.SIGKILL)
except PermissionError:
    print("refused", flush=True)
"""


def tried(deed: Callable[[], object]) -> str:
    try:
        deed()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def pin() -> Path:
    (folder,) = [path for path in PIN.iterdir() if path.is_dir()]
    return folder / "links" / "aegis_connect4"


def guard_state() -> str:
    text = run("aegis", "status", "--json").partition(": ")[2]
    if not text.startswith("{"):
        return text
    told = json.loads(text)
    refused = (told["agent"] or {}).get("refused")
    return f"{told['tiers']['guard']} {told['problems']} {refused}"


def is_active() -> bool:
    return "'active': True" in guard_state()


def deeds() -> dict[str, str]:
    pid = int(main_pid())
    return {
        "kill": tried(lambda: os.kill(pid, signal.SIGKILL)),
        "chmod": tried(lambda: pin().chmod(0o600)),
        "cgroup.kill": tried(lambda: (CGROUP.parent / "cgroup.kill").write_text("1")),
        "memory.max": tried(lambda: (CGROUP.parent / "memory.max").write_text("1")),
    }


def intrude(execute: str) -> str:
    """As a unit of its own, and so forked by PID 1."""
    script = INTRUDER.format(cgroup=CGROUP, execute=execute, pid=main_pid())
    return run("systemd-run", "--quiet", "--pipe", "--wait", "/usr/bin/python3", "-c", script)


def again(pid: str) -> bool:
    return until(lambda: main_pid() not in ("0", pid) and is_active(), 400)


def the_guard() -> dict[str, object]:
    Path("/etc/aegis.d").mkdir(exist_ok=True)
    policy = Path("/etc/aegis.d/00-guard.toml")
    policy.write_text("[global]\ntamper_guard = true\n")
    told: dict[str, object] = {"check": run("aegis", "check")}
    told["restart"] = run("systemctl", "restart", "aegis")
    told["state"] = guard_state()
    told["deeds"] = deeds()
    told["in its cgroup"] = intrude("")
    exec_again = 'if len(sys.argv) < 2: os.execv("/usr/bin/python3", ["python3", "-c", {!r}, "2"])'
    told["in its cgroup, executed there"] = intrude(exec_again.format(INTRUDER.format(
        cgroup=CGROUP, execute="", pid=main_pid()
    )))  # fmt: skip
    told["others"] = run("systemd-run", "--wait", "-q", "-p", "IPAddressDeny=any", "true")
    told["reload"] = run("systemctl", "reload", "aegis")
    return told


def its_life() -> dict[str, object]:
    pid = main_pid()
    told: dict[str, object] = {"crash": run("systemctl", "kill", "-s", "SIGKILL", "aegis")}
    told["chmod after it"] = tried(lambda: pin().chmod(0o600))
    told["another agent"] = again(pid)
    told["deeds"] = deeds()
    told["stop"] = run("systemctl", "stop", "aegis")
    told["chmod when stopped"] = tried(lambda: pin().chmod(0o600))
    told["start"] = run("systemctl", "start", "aegis")
    pid = main_pid()
    told["dpkg"] = run("dpkg", "--install", "/root/aegis.deb")
    told["upgraded"] = again(pid)
    told["chmod"] = tried(lambda: pin().chmod(0o600))
    told["unload"] = run("aegis", "unload")
    told["pins"] = PIN.exists()
    notices = [json.loads(line).get("aegis", {}) for line in LOG.read_text().splitlines()]
    kinds = [notice.get("notice") for notice in notices]
    told["events"] = {kind: kinds.count(kind) for kind in ("tamper-refused", "guard-lifted")}
    return told


def lost() -> bool:
    """The agent crashed, and none comes after it: the guard is there all the same."""
    OFF.touch()
    run("systemctl", "kill", "-s", "SIGKILL", "aegis")
    gone = until(lambda: run("systemctl", "is-active", "aegis").endswith(" inactive"))
    OFF.unlink()
    return gone and tried(lambda: pin().chmod(0o600)) == "EPERM"


def stays_unloaded() -> bool:
    """The agent ended when it was asked to, and is neither started anew nor failed."""
    time.sleep(15)  # RestartSec, three times
    return state() == "inactive" and not PIN.exists()


def the_way_out() -> dict[str, object]:
    """After a crash, without an agent: only what PID 1 starts in a unit of ours may unload."""
    told: dict[str, object] = {"stays unloaded": stays_unloaded()}
    told["start"] = run("systemctl", "start", "aegis")
    told["started again"], told["lost"] = again("0"), lost()
    told["status"] = run("aegis", "status")
    told["unload"] = run("aegis", "unload")
    told["a unit of another name"] = run("systemd-run", "--wait", "-q", "aegis", "unload")
    told["pins then"] = PIN.exists()
    OFF.touch()
    told["start aegis-unload"] = run("systemctl", "start", "aegis-unload")
    told["pins"] = PIN.exists()
    told["got"] = knock()
    OFF.unlink()
    return told


def the_end() -> dict[str, object]:
    told: dict[str, object] = {"start": run("systemctl", "start", "aegis")}
    told["guarded again"] = is_active()
    told["lost"] = lost()
    told["dpkg -r"] = run("dpkg", "--remove", "aegis")
    told["pins"] = PIN.exists()
    told["got"] = knock()
    return told


STEPS = (the_guard, its_life, the_way_out, the_end)
