# SPDX-License-Identifier: Apache-2.0
"""What an administrator meets of the package under systemd, each with what came of it."""

import grp
import json
import pwd
import shutil
import socket
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from probe import try_connect

LOG = Path("/var/log/aegis/events.jsonl")
POLICY = Path("/etc/aegis.toml")
SCRIPTS = Path("/etc/aegis/scripts")
HOOK_PORT = 8099
MORE = """
[notify]
urls_file = "/etc/aegis/notify.urls"

[[app]]
path = "/usr/local/bin/told-prober"
ports = []
actions = ["log", "notify", "block"]

[[app]]
path = "/usr/local/bin/mail-prober"
ports = []
actions = ["log", "block", "script:mail-root"]

[[app]]
path = "/usr/local/bin/cut-prober"
ports = []
actions = ["log", "block", "script:isolate"]

[[app]]
path = "/usr/local/bin/doomed-prober"
ports = []
actions = ["log", "kill"]
"""


def run(*argv: str) -> str:
    """What it printed, its exit code first."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
    return f"{done.returncode}: {(done.stdout + done.stderr).strip()}"


def until(happened: Callable[[], object], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def who(path: Path) -> str:
    status = path.stat()
    owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    return f"{stat.S_IMODE(status.st_mode):04o} {owner}:{group}"


def knock(program: str = "prober", port: int = 9) -> str:
    """A refused connection of *program*: of TCP, since a UDP connect() sends nothing and so

    makes no notification and runs no script.
    """
    command = [f"/usr/local/bin/{program}", "-c", f"exec 3<>/dev/tcp/10.0.2.2/{port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "denied" if "not permitted" in done.stderr else "open"


def logged(port: int) -> bool:
    return f'"port":{port}' in LOG.read_text().replace(" ", "") if LOG.exists() else False


def main_pid() -> str:
    return run("systemctl", "show", "--value", "--property=MainPID", "aegis").partition(": ")[2]


def generation() -> int:
    text = run("aegis", "status", "--json").partition(": ")[2]
    return int(json.loads(text)["generation"]) if text.startswith("{") else 0


def the_log() -> dict[str, object]:
    knock(port=1001)
    told: dict[str, object] = {"written": until(lambda: logged(1001)), "events.jsonl": who(LOG)}
    told["directory"] = who(LOG.parent)
    read = ("setpriv", "--reuid=65534", "--regid=65534", "--inh-caps=-all")
    told["adm reads it"] = run(*read, "--groups=adm", "head", "-c", "1", str(LOG))
    told["others do not"] = run(*read, "--clear-groups", "head", "-c", "1", str(LOG))
    pid = main_pid()
    told["logrotate"] = run("logrotate", "--force", "/etc/logrotate.d/aegis")
    told["moved"] = sorted(path.name for path in LOG.parent.iterdir())
    knock(port=1002)
    told["written anew"] = until(lambda: logged(1002))
    told["not the old"] = not logged(1001)
    told["new events.jsonl"] = who(LOG)
    told["the same agent"] = main_pid() == pid
    return told


def the_journal() -> dict[str, object]:
    text = run("journalctl", "-b", "-u", "aegis", "-o", "json", "--no-pager").partition(": ")[2]
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    ours = [
        entry for entry in entries if str(entry["MESSAGE"])[:8].strip() in ("BLOCKED", "ALLOWED")
    ]
    kinds = Counter((str(e["MESSAGE"]).split()[0], e["PRIORITY"]) for e in ours)
    return {f"{word} at priority {level}": count for (word, level), count in kinds.items()}


def the_notification() -> dict[str, object]:
    """Who sends it, seen from the one who gets it."""
    urls = Path("/etc/aegis/notify.urls")
    urls.write_text(f"http://127.0.0.1:{HOOK_PORT}/hook\n")
    urls.chmod(0o600)
    with socket.create_server(("127.0.0.1", HOOK_PORT)) as server:
        server.settimeout(120)
        told: dict[str, object] = {"refused": knock("told-prober")}
        try:
            client, (_, port) = server.accept()
        except TimeoutError:
            return told | {"came": False, "why": state_of_the_agent()}
        with client:
            told |= {"came": True, "sender": sender(port)}
            told["body"] = client.recv(65536).decode(errors="replace")[-300:]
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return told


def sender(port: int) -> dict[str, str]:
    """What the process is that holds the other end of the connection from *port*."""
    inodes = [
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}")
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(f"socket:[{inode}]" in held for inode in inodes):
            lines = (process / "status").read_text().splitlines()
            wanted = ("Uid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
            found = dict(line.split(":", 1) for line in lines)
            return {name: " ".join(found[name].split()) for name in wanted}
    return {}


def the_mail() -> dict[str, object]:
    """A mail system that only keeps what it is given, where the sandbox may not write."""
    sendmail = Path("/usr/sbin/sendmail")
    sendmail.write_text("#!/bin/sh\nexec cat >>/var/mail/root\n")
    sendmail.chmod(0o755)
    spool = Path("/var/mail/root")
    knock("mail-prober")
    came = until(lambda: spool.exists() and "10.0.2.2" in spool.read_text())
    return {"came": came, "text": spool.read_text()[:400] if came else state_of_the_agent()}


def state_of_the_agent() -> list[str]:
    """What it said last, and what runs in its cgroup."""
    said = run("journalctl", "-b", "-u", "aegis*", "-n", "20", "-o", "cat", "--no-pager")
    told = run("aegis", "status", "--json").partition(": ")[2]
    agent = json.loads(told).get("agent") or {} if told.startswith("{") else {}
    counts = {name: agent.get(name) for name in ("scripts", "notifications")}
    return [said, run("systemd-cgls", "--no-pager", "-u", "aegis.service"), json.dumps(counts)]


def the_cut() -> dict[str, object]:
    knock("cut-prober")
    table = ("nft", "list", "table", "inet", "aegis_isolate")
    came = until(lambda: run(*table).startswith("0:"))
    told: dict[str, object] = {"came": came, "table": run(*table)[:600]}
    if not came:
        told["said"] = state_of_the_agent()
    told["undone"] = run("nft", "delete", "table", "inet", "aegis_isolate")
    return told


def the_kill() -> dict[str, object]:
    """By the agent, not by the kernel: who takes its descendants along."""
    POLICY.write_text(POLICY.read_text().replace("[global]", "[global]\nkill_tree = true", 1))
    told: dict[str, object] = {"reload": run("aegis", "reload")}
    command = [
        "/usr/local/bin/doomed-prober",
        "-c",
        "exec 3<>/dev/tcp/10.0.2.2/9; sleep 100 & wait",
    ]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100, user=65534)
    told["ended"] = done.returncode
    return told | {"rights": rights()}


def rights() -> dict[str, str]:
    """What each unit of ours that runs may do, and as whom."""
    found = {}
    for unit in run("systemctl", "list-units", "--plain", "--no-legend", "aegis*.service").split():
        pid = run("systemctl", "show", "--value", "--property=MainPID", unit).partition(": ")[2]
        if unit.endswith(".service") and pid.isdecimal() and pid != "0":
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = {line.split(":", 1)[0]: " ".join(line.split()[1:]) for line in lines}
            wanted = ("Uid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
            found[unit] = " ".join(f"{name}={status[name]}" for name in wanted)
    return found


class Watched:
    """One prober all the while: what it got."""

    def __init__(self) -> None:
        self._out, self._end = Path("/run/watched"), Path("/run/watched.end")
        self._end.unlink(missing_ok=True)
        script = (
            f"while ! [ -e {self._end} ]; do "
            "if (exec 3<>/dev/udp/10.0.2.2/9) 2>/dev/null; then echo open; else echo denied; fi; "
            f"done >{self._out}"
        )
        self._process = subprocess.Popen(["/usr/local/bin/prober", "-c", script])

    def got(self) -> dict[str, int]:
        self._end.touch()
        self._process.wait()
        return dict(Counter(self._out.read_text().split()))


def the_unit() -> dict[str, object]:
    """Reload, restart, stop and start, with a prober at it all the while."""
    watched = Watched()
    before, pid = generation(), main_pid()
    told: dict[str, object] = {"reload": run("systemctl", "reload", "aegis")}
    told["generations"] = f"{before} -> {generation()}"
    good = POLICY.read_text()
    POLICY.write_text(good + "[[app\n")
    told["reload of a broken policy"] = run("systemctl", "reload", "aegis")
    told["the same agent"] = main_pid() == pid
    POLICY.write_text(good)
    told["restart"] = run("systemctl", "restart", "aegis")
    told["another agent"] = main_pid() != pid
    told["stop"] = run("systemctl", "stop", "aegis")
    told["status"] = run("aegis", "status").splitlines()[0][:60]
    told["start"] = run("systemctl", "start", "aegis")
    told["meanwhile"] = watched.got()
    return told


def the_upgrade() -> dict[str, object]:
    watched, pid = Watched(), main_pid()
    told: dict[str, object] = {"dpkg": run("dpkg", "--install", "/root/aegis.deb")}
    told["active"] = until(lambda: run("systemctl", "is-active", "aegis").startswith("0:"))
    told["another agent"] = main_pid() != pid
    told["meanwhile"] = watched.got()
    return told


def state() -> str:
    return run("systemctl", "is-active", "aegis").rpartition(" ")[2]


def the_way_out() -> dict[str, object]:
    """As aegis(8) has it; nobody starts an agent anew until the file is gone."""
    off = Path("/etc/aegis/off")
    off.touch()
    told: dict[str, object] = {"unload": run("aegis", "unload")}
    told["got"] = knock()
    told["stays off"] = until(lambda: state() == "inactive", 60)
    before = run("systemctl", "show", "--value", "--property=NRestarts", "aegis")
    time.sleep(15)  # RestartSec, three times
    after = run("systemctl", "show", "--value", "--property=NRestarts", "aegis")
    told["not started anew"] = before == after and state() == "inactive"
    off.unlink()
    told["start"] = run("systemctl", "start", "aegis")
    told["got then"] = knock()
    return told


def the_removal() -> dict[str, object]:
    told: dict[str, object] = {"dpkg -r": run("dpkg", "--remove", "aegis")}
    told["pins"] = Path("/sys/fs/bpf/aegis").exists()
    told["got"] = {name: try_connect("10.0.2.2", 9) for name in ("prober",)}
    told["units"] = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "aegis*")
    told["dpkg -P"] = run("dpkg", "--purge", "aegis")
    left = [str(path) for path in (LOG.parent, Path("/var/lib/aegis"), POLICY) if path.exists()]
    told["left"] = left
    return told


def exposures() -> dict[str, object]:
    """As systemd sees the units that were loaded."""
    found: dict[str, object] = {}
    for unit in (
        *("aegis.service", "aegis-load.service", "aegis-kill.service", "aegis-sever.service"),
        *("aegis-names.service", "aegis-paths.service", "aegis-attach.service"),
        *("aegis-hooks@0.service", "aegis-hooks@65534.service"),
    ):
        text = run("systemd-analyze", "security", "--no-pager", unit)
        found[unit] = text.strip().splitlines()[-1]
        marks = [line for line in text.splitlines() if "✗" in line]
        found[f"{unit} lacks"] = "\n".join(" ".join(mark.split())[:110] for mark in marks)
    return found


def reactions() -> dict[str, object]:
    """What the agent starts, in the sandbox of its unit; and the end."""
    return tour(the_notification, the_mail, the_kill, the_cut, exposures, the_removal)


def package() -> dict[str, object]:
    """Everything, the end last."""
    return tour(the_log, the_journal, the_notification, the_mail, the_kill, the_unit, the_upgrade,
                the_way_out, exposures, the_cut, the_removal)  # fmt: skip


def tour(*steps: Callable[[], dict[str, object]]) -> dict[str, object]:
    for name in ("told-prober", "mail-prober", "cut-prober", "doomed-prober"):
        shutil.copy("/usr/local/bin/prober", f"/usr/local/bin/{name}")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    for name in ("mail-root", "isolate"):
        shutil.copy(f"/root/scripts/{name}", SCRIPTS / name)
        (SCRIPTS / name).chmod(0o755)
    Path("/etc/aegis/notify.urls").write_text("")
    Path("/etc/aegis/notify.urls").chmod(0o600)
    POLICY.write_text(POLICY.read_text() + MORE)
    told: dict[str, object] = {"check": run("aegis", "check"), "reload": run("aegis", "reload")}
    for step in steps:
        try:
            told[step.__name__] = step()
        except Exception as error:  # the next step may hold all the same
            told[step.__name__] = repr(error)
        with Path("/dev/ttyS1").open("a") as port:
            port.write(f"{step.__name__} {json.dumps(told[step.__name__])}\n")
    return told


def guard() -> dict[str, object]:
    """Who is Aegis to ``tamper_guard``."""
    from guard_tour import STEPS  # noqa: PLC0415  it imports this

    return tour(*STEPS)


TOURS = {"package": package, "reactions": reactions, "guard": guard}
