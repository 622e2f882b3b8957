# SPDX-License-Identifier: Apache-2.0
"""One JSON object about this boot to the second serial port, and what the next boot is to find."""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, "/usr/local/lib/aegis-test")
from probe import probe

PORT = Path("/dev/ttyS1")
POLICY = Path("/etc/aegis.toml")
KEPT = Path("/var/lib/aegis/last-good")
PATIENCE = 240.0
REACHABLE_S = 30.0  # that sshd is there, for who calls from outside


def run(*argv: str) -> tuple[int, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.returncode, (done.stdout + done.stderr).strip()


def words() -> dict[str, str]:
    """``aegis-test.NAME=VALUE`` of the kernel's command line."""
    text = Path("/proc/cmdline").read_text().split()
    given = [word.removeprefix("aegis-test.").split("=") for word in text if "aegis-test." in word]
    return dict(given)


def journal(unit: str, since: str = "") -> list[dict[str, str]]:
    _, text = run("journalctl", "-b", "-u", unit, "-o", "json", "--no-pager")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def messages(unit: str) -> list[str]:
    return [str(entry.get("MESSAGE")) for entry in journal(unit)]


def show(unit: str, *names: str) -> dict[str, str]:
    _, text = run("systemctl", "show", unit, *(f"--property={name}" for name in names))
    return dict(line.split("=", 1) for line in text.splitlines())


def settle() -> None:
    """Until the agent is ready, has failed, or is not to start."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        state = show("aegis.service", "ActiveState", "NRestarts", "ConditionResult")
        if state["ActiveState"] == "active" or int(state["NRestarts"]) > 0:
            return
        if state["ConditionResult"] == "no" and state["ActiveState"] == "inactive":
            return
        time.sleep(0.5)


def stay_reachable() -> None:
    """A boot with little to do would be over before somebody came."""
    since = show("ssh.service", "ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"]
    time.sleep(max(0.0, int(since) / 1e6 + REACHABLE_S - time.monotonic()))


def link_up() -> float:
    """When the first interface but lo was up, as the network manager saw it; seconds."""
    for entry in journal("systemd-networkd"):
        if "Link UP" in str(entry.get("MESSAGE")) and not str(entry["MESSAGE"]).startswith("lo:"):
            return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
    return 0.0


def facts() -> dict[str, object]:
    times = ("ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic")
    load = show("aegis-load.service", "ActiveState", "Result", "ConditionResult", *times)
    network = show("systemd-networkd.service", "ExecMainStartTimestampMonotonic")
    agent = show("aegis.service", "ActiveState", "SubState", "NRestarts", "ConditionResult")
    code, status = run("/usr/bin/aegis", "status", "--json")
    return {
        "load": load,
        "load_said": messages("aegis-load.service"),
        "loaded_at": int(load["ExecMainExitTimestampMonotonic"]) / 1e6,
        "networkd_at": int(network["ExecMainStartTimestampMonotonic"]) / 1e6,
        "link_up_at": link_up(),
        "early": json.loads(Path("/run/probe.json").read_text()),
        "late": probe(),
        "agent": agent,
        "agent_said": messages("aegis.service")[-8:],
        "status_code": code,
        "status": json.loads(status) if status.startswith("{") else status,
        "addresses": run("ip", "-br", "address")[1],
        "failed": run("systemctl", "--failed", "--plain", "--no-legend")[1],
    }


def prepare(what: str) -> None:
    """What the next boot is to find; what an earlier one found is put right first."""
    good = POLICY.with_suffix(".good")
    if good.exists():
        good.replace(POLICY)
    Path("/etc/aegis/off").unlink(missing_ok=True)
    if what in ("broken", "broken-and-none"):
        POLICY.rename(good)
        POLICY.write_text(good.read_text() + "\n[[app\n")
        POLICY.chmod(0o644)
    if what == "damaged":
        KEPT.write_bytes(KEPT.read_bytes()[:-100])
    if what in ("none", "broken-and-none"):
        KEPT.unlink(missing_ok=True)
    if what == "off-file":
        Path("/etc/aegis/off").touch()


def main() -> None:
    asked = words()
    told: dict[str, object] = {}
    try:
        settle()
        told = facts()
        if "do" in asked:
            from suspended import nap, suspend  # noqa: PLC0415
            from tour import TOURS  # noqa: PLC0415

            told["tour"] = {**TOURS, "suspend": suspend, "nap": nap}[asked["do"]]()
        stay_reachable()
        # The agent's end, here as at each shutdown: it writes what it has to.
        run("systemctl", "stop", "aegis.service")
        prepare(asked.get("next", ""))
    except Exception as error:  # whoever waits is to be told
        told["error"] = repr(error)
    with PORT.open("a") as port:
        port.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
