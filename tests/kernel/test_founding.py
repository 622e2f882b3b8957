# SPDX-License-Identifier: Apache-2.0
"""The seven founding examples of policy-language.md, as written, on real programs.

Programs go by the names of the examples; what runs under them is Debian's own
curl, ncat and Python, so that what they do is what such programs do.
"""

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.hooks import Hooks
from tests.kernel.network import PRIVATE4, REMOTE4, REMOTE4_OTHER
from tests.kernel.policies import write_drop_in
from tests.kernel.programs import Outcome, Programs
from tests.kernel.servers import Servers
from tests.kernel.test_keys import CLIENT
from tests.kernel.workshop import Workshop
from tests.sentences import SHIPPED

CURL, NCAT = "/usr/bin/curl", "/usr/bin/ncat"
PYTHON = Path("/usr/bin/python3").resolve()
MYSQL, POOL, STRANGE = 3306, 3333, 31337

_EXAMPLE = SHIPPED.read_text().split("```toml\n")[1].split("```")[0]
MAIN = "\n".join(line for line in _EXAMPLE.splitlines() if "# added" not in line)
APP = '[[app]]\nexe = "telegraf"\nports = ["8086"]\nactions = ["log"]\n'
ZZ_TELEGRAF = '[[app]]\nremotes = ["8086"]\nactions = ["kill"]\n'
TWO = '[[app]]\nexe = "telegraf"\n\n[[app]]\nexe = "wazuh-agentd"\n'


@dataclass(frozen=True)
class Host:
    """One policy in force, and the scripts it may run."""

    agent: Agent
    drop_ins: Path
    hooks: Hooks

    def logged(self, outcome: Outcome) -> list[Event]:
        """What the event log, not only the live view, holds of a program that ended."""
        self.agent.settle()
        path = Path(self.agent.status()["agent"]["log"]["path"])
        events = map(json.loads, path.read_text().splitlines())
        found = [event for event in events if field(event, "process.pid") == outcome.pid]
        return [event for event in found if field(event, "destination.port") is not None]


class Hosts:
    """Makes the policies of the examples, one after the other."""

    def __init__(self, workshop: Workshop, agents: Agents) -> None:
        self._workshop = workshop
        self._agents = agents

    def make(self, text: str = "", script: str = "any", **drop_ins: str) -> Host:
        """*text* is the main file; without one, only what names the directories."""
        folder = self._workshop.new_folder()
        hooks = Hooks(folder)
        (hooks.directory / "10-recorder").rename(hooks.directory / script)
        directory = self._workshop.folder(f"{folder.name}/aegis.d")
        for name, content in drop_ins.items():
            write_drop_in(directory, f"{name.replace('_', '-')}.toml", content)
        named = f'include_dirs = ["{directory}"]\nscript_dirs = ["{hooks.directory}"]'
        text = text or f"[global]\n{named}"
        text = text.replace('"/etc/aegis.d"', f'"{directory}"')
        text = text.replace('"/etc/aegis/scripts"', f'"{hooks.directory}"')
        agent, _ = self._agents.share(text + "\n")
        return Host(agent, directory, hooks)


def copy(workshop: Workshop, name: str, source: str | Path) -> Path:
    """*source* under another name: a file of its own, about which nothing was said yet."""
    return Path(shutil.copy(source, workshop.new_folder() / name))


@pytest.fixture(scope="module")
def hosts(workshop: Workshop, servers: Servers, agents: Agents) -> Hosts:
    servers.open(80, 443, 8086, 8087, MYSQL, POOL, STRANGE)
    return Hosts(workshop, agents)


def test_the_main_file(hosts: Hosts, workshop: Workshop, programs: Programs) -> None:
    """Example 1: telegraf's port is quiet, here and elsewhere; another is let pass and logged."""
    host = hosts.make(MAIN)
    telegraf, since = copy(workshop, "telegraf", CURL), host.agent.mark()
    for address in ("127.0.0.1", REMOTE4):
        outcome = programs.curl(telegraf, f"http://{address}:8086/")
        assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
        assert host.agent.settled_events(since, process__pid=outcome.pid) == []
    outcome = programs.curl(telegraf, f"http://{REMOTE4}:8087/")
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    [event] = host.logged(outcome)
    assert field(event, "aegis.verdict") == "allowed"
    assert field(event, "aegis.reason") == "rule-denies"
    again = programs.curl(telegraf, f"http://{REMOTE4}:8087/")
    assert again.code == 0
    assert host.logged(again) == []  # detent = 86400: said once a day


@pytest.mark.parametrize(
    ("attempt", "events"),
    [
        pytest.param(("stranger", f"{PRIVATE4}:8087"), 0, id="ips"),
        pytest.param(("stranger", f"{REMOTE4}:443"), 0, id="ports"),
        pytest.param(("systemd", f"{REMOTE4}:8087"), 0, id="programs"),
        pytest.param(("telegraf", f"{REMOTE4_OTHER}:80"), 0, id="also-for-telegraf"),
        pytest.param(("stranger", f"{REMOTE4_OTHER}:8087"), 1, id="else-unconfigured"),
    ],
)
def test_the_whitelist_of_the_main_file(
    attempt: tuple[str, str], events: int, hosts: Hosts, workshop: Workshop, programs: Programs
) -> None:
    """Example 1: what is whitelisted is allowed and not reported, the rest is logged."""
    host, (name, destination) = hosts.make(MAIN), attempt
    outcome = programs.curl(copy(workshop, name, CURL), f"http://{destination}/")
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    named = [field(event, "rule.name") for event in host.logged(outcome)]
    assert named == ["unconfigured"] * events


def test_a_drop_in(hosts: Hosts, workshop: Workshop, programs: Programs) -> None:
    """Example 2: what leaves the map is logged, with the drop-in's line."""
    host = hosts.make(myapp=APP)
    telegraf = copy(workshop, "telegraf", CURL)
    for port, events in ((8086, 0), (8087, 1)):
        outcome = programs.curl(telegraf, f"http://127.0.0.1:{port}/")
        assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
        named = [field(event, "rule.name") for event in host.logged(outcome)]
        assert named == [f"{host.drop_ins}/myapp.toml:1"] * events


def test_a_later_drop_in_kills_for_another_remote_port(
    hosts: Hosts, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """Example 3: it replaces example 2, is about telegraf by its name, and kills."""
    host = hosts.make(myapp=APP, zz_telegraf=ZZ_TELEGRAF)
    telegraf = copy(workshop, "telegraf", PYTHON)
    before, since = servers.connections(8087), host.agent.mark()
    outcome = programs.run(telegraf, "-c", CLIENT, REMOTE4, "8086")
    assert outcome.code == 0, outcome.stderr
    outcome = programs.run(telegraf, "-c", CLIENT, REMOTE4, "8087")
    assert outcome.code == -signal.SIGKILL, outcome.stderr
    assert servers.connections(8087) == before
    event = host.agent.wait_event(since, process__pid=outcome.pid, aegis__verdict="blocked")
    assert field(event, "rule.name") == f"{host.drop_ins}/zz-telegraf.toml:1"


def test_a_later_drop_in_leaves_local_open(
    hosts: Hosts, workshop: Workshop, programs: Programs
) -> None:
    """Example 3: ``remotes`` says nothing about this host, on no port of it."""
    host = hosts.make(myapp=APP, zz_telegraf=ZZ_TELEGRAF)
    telegraf = copy(workshop, "telegraf", CURL)
    for address in ("127.0.0.1:8087", "[::1]:443"):
        outcome = programs.curl(telegraf, f"http://{address}/")
        assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
        assert host.logged(outcome) == []


def test_two_programs_in_one_file(hosts: Hosts, workshop: Workshop, programs: Programs) -> None:
    """Example 4: each is about its own program, whatever the file is called."""
    host = hosts.make(zz_myserver=TWO)
    for name, line in (("telegraf", 1), ("wazuh-agentd", 4)):
        program = copy(workshop, name, CURL)
        outcome = programs.curl(program, f"http://{REMOTE4}:8086/")
        assert outcome.code == 0, outcome.stderr
        [event] = host.logged(outcome)
        assert field(event, "rule.name") == f"{host.drop_ins}/zz-myserver.toml:{line}"
        assert field(event, "aegis.actions") == ["log", "notify"]
    stranger = programs.curl("curl", f"http://{REMOTE4}:8086/")
    assert {field(e, "rule.name") for e in host.logged(stranger)} == {"unconfigured"}


def test_nginx_tries_a_mysql_server_and_a_script_is_run(
    hosts: Hosts, workshop: Workshop, programs: Programs
) -> None:
    """Example 5: the script is given all that it could tell Slack."""
    rule = '[[app]]\nports = ["80", "443"]\nactions = ["script:slack"]\n'
    host = hosts.make(script="slack", nginx=rule)
    nginx = copy(workshop, "nginx", NCAT)
    outcome = programs.run(nginx, "-w", "3", REMOTE4, str(MYSQL))
    assert outcome.code == 0, outcome.stderr  # told, not refused
    run = host.hooks.wait(str(outcome.pid))
    assert run.environment["AEGIS_EXE"] == str(nginx)
    assert run.environment["AEGIS_DST"] == REMOTE4
    assert run.environment["AEGIS_DPT"] == str(MYSQL)
    assert run.environment["AEGIS_RULE"] == f"{host.drop_ins}/nginx.toml:1"


def test_nginx_tries_a_mysql_server_and_is_killed(
    hosts: Hosts, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """Example 5, the other way: nothing reaches the server."""
    hosts.make(nginx='[[app]]\nports = ["80", "443"]\nactions = ["kill"]\n')
    nginx, before = copy(workshop, "nginx", PYTHON), servers.reached(MYSQL)
    assert programs.run(nginx, "-c", CLIENT, REMOTE4, "443").code == 0
    outcome = programs.run(nginx, "-c", CLIENT, REMOTE4, str(MYSQL))
    assert outcome.code == -signal.SIGKILL, outcome.stderr
    assert servers.reached(MYSQL) == before


def test_a_stranger_at_a_mining_pool_is_logged_and_notified(
    hosts: Hosts, workshop: Workshop, programs: Programs
) -> None:
    """Example 6: where the policy says nothing of the unconfigured."""
    host = hosts.make()
    stranger = copy(workshop, "xmrig", NCAT)
    outcome = programs.run(stranger, "-w", "3", REMOTE4, str(POOL))
    assert outcome.code == 0, outcome.stderr
    [event] = host.logged(outcome)
    assert field(event, "rule.name") == "unconfigured"
    assert host.hooks.wait(str(outcome.pid)).environment["AEGIS_DPT"] == str(POOL)


def test_sshd_at_a_strange_port_has_the_host_isolated(
    hosts: Hosts, workshop: Workshop, programs: Programs
) -> None:
    """Example 7: the script named, and no other event, cuts the host off."""
    rule = '[[app]]\nremotes = ["22"]\nactions = ["log", "script:isolate"]\n'
    host = hosts.make(script="isolate", sshd=rule)
    sshd = copy(workshop, "sshd", NCAT)
    since = host.agent.mark()
    usual = programs.run(sshd, "-w", "3", REMOTE4, "22")
    assert host.agent.settled_events(since, process__pid=usual.pid) == []
    outcome = programs.run(sshd, "-w", "3", REMOTE4, str(STRANGE))
    assert outcome.code == 0, outcome.stderr
    run = host.hooks.wait(str(outcome.pid))
    assert json.loads(run.stdin)["destination"]["port"] == STRANGE
    assert not host.hooks.has_run(str(usual.pid))
