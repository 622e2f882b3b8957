# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: refused in the kernel, told, a script run, and killed."""

import json
import pwd
import re
import signal
import time
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.hooks import HookRun, Hooks
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Outcome, Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ONCE, NOBODY, PATIENCE
from tests.kernel.workshop import Workshop

PYTHON_CLIENT = """\
#!/usr/bin/python3
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
except OSError as error:
    sys.exit(error.strerror)
"""

POLICY = """
[global]
script_dirs = ["{scripts}"]
unconfigured_actions = ["log"]
detent = 0

[[app]]
exe = "curl"
ports = ["8086"]
actions = ["log", "notify", "block"]

[[app]]
exe = "ncat"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "busybox"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
cmdline = "{client}"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
path = "{killed}"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
path = "{reported}"
ports = ["8086"]
actions = ["log"]
"""


class House:
    """The programs of this module under one running agent."""

    def __init__(self, workshop: Workshop, agents: Agents) -> None:
        self.client = workshop.script("client.py", PYTHON_CLIENT)
        self.killed = workshop.install("killed")
        self.reported = workshop.install("reported")
        self.hooks = Hooks(workshop.new_folder())
        self.agent, self.policy = agents.share(
            POLICY.format(
                scripts=self.hooks.directory,
                client=self.client,
                killed=self.killed,
                reported=self.reported,
            )
        )


@pytest.fixture(scope="module")
def house(workshop: Workshop, servers: Servers, agents: Agents) -> House:
    servers.open(8086, 8087)
    return House(workshop, agents)


@pytest.fixture
def agent(house: House) -> Agent:
    return house.agent


@pytest.fixture
def policy(house: House) -> PolicyFile:
    return house.policy


def test_curl_reaches_the_port_it_may_and_nothing_is_said(
    agent: Agent, programs: Programs, servers: Servers
) -> None:
    """On the map is quiet."""
    since, before = agent.mark(), servers.connections(8086)
    outcome = programs.curl("curl", "http://127.0.0.1:8086/")
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    assert servers.connections(8086) == before + 1
    assert agent.settled_events(since, process__pid=outcome.pid) == []


def test_curl_is_refused_another_port_at_once_and_nothing_arrives(
    agent: Agent, programs: Programs, servers: Servers
) -> None:
    """EPERM from the kernel, not a timeout, and the server never hears of it."""
    before = servers.reached(8087)
    outcome = programs.curl("curl", "http://127.0.0.1:8087/", "--verbose")
    assert outcome.code == 7, outcome.stderr  # curl: failed to connect
    assert "Operation not permitted" in outcome.stderr
    assert outcome.stdout == ""
    assert outcome.seconds < AT_ONCE
    assert servers.reached(8087) == before


def test_the_event_says_who_what_where_and_which_rule(
    agent: Agent, policy: PolicyFile, programs: Programs
) -> None:
    """One JSON object with everything an administrator needs, by ECS names."""
    since = agent.mark()
    outcome = programs.curl("curl", "http://127.0.0.1:8087/page", user=NOBODY)
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    wanted = {
        "process.name": "curl",
        "process.executable": "/usr/bin/curl",
        "user.id": str(NOBODY),
        "user.name": pwd.getpwuid(NOBODY).pw_name,
        "destination.ip": "127.0.0.1",
        "destination.port": 8087,
        "network.transport": "tcp",
        "network.type": "ipv4",
        "network.direction": "egress",
        "rule.name": policy.rule('exe = "curl"'),
        "event.kind": "alert",
        "event.category": ["network"],
        "event.type": ["connection", "denied"],
        "event.outcome": "failure",
        "aegis.verdict": "blocked",
        "aegis.mode": "enforce",
        "aegis.scope": "local",
        "aegis.actions": ["log", "notify", "block"],
        "aegis.count": 1,
    }
    assert {name: field(event, name) for name in wanted} == wanted
    assert field(event, "process.command_line").endswith(" http://127.0.0.1:8087/page")
    assert field(event, "process.args")[0] == "curl"
    assert field(event, "process.parent.pid") > 1
    assert "trusted" in field(event, "aegis.identity")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event["@timestamp"])


def test_event_numbers_are_unique_and_rise(agent: Agent, programs: Programs) -> None:
    """A gap or a repetition in ``event.sequence`` would hide a lost event."""
    since = agent.mark()
    for _ in range(3):
        programs.curl("curl", "http://127.0.0.1:8087/")
    events = agent.settled_events(since)
    numbers = [field(event, "event.sequence") for event in events]
    assert numbers == sorted(set(numbers))
    assert len({field(event, "event.id") for event in events}) == len(events) > 3


def hook_run(house: House, outcome: Outcome) -> HookRun:
    return house.hooks.wait(str(outcome.pid))


def test_hook_script_gets_the_documented_environment(house: House, programs: Programs) -> None:
    """Every documented variable and no other: nothing of the agent's or the program's."""
    since = house.agent.mark()
    outcome = programs.curl("curl", "http://127.0.0.1:8087/$(id)", user=NOBODY)
    run = hook_run(house, outcome)
    event = house.agent.wait_event(since, process__pid=outcome.pid, aegis__verdict="blocked")
    wanted = {
        "AEGIS_PID": str(outcome.pid),
        "AEGIS_EXE": "/usr/bin/curl",
        "AEGIS_DST": "127.0.0.1",
        "AEGIS_DPT": "8087",
        "AEGIS_PROTO": "tcp",
        "AEGIS_DIRECTION": "out",
        "AEGIS_VERDICT": "blocked",
        "AEGIS_ACTIONS": "log,notify,block",
        "AEGIS_RULE": house.policy.rule('exe = "curl"'),
        "AEGIS_USER": pwd.getpwuid(NOBODY).pw_name,
        "AEGIS_UID": str(NOBODY),
        "AEGIS_PPID": str(field(event, "process.parent.pid")),
        "AEGIS_EVENT_ID": field(event, "event.id"),
        "AEGIS_COUNT": "1",
    }
    assert {name: run.environment.get(name) for name in wanted} == wanted
    assert run.environment["AEGIS_CMDLINE"].endswith("http://127.0.0.1:8087/%24(id)")
    assert run.environment["AEGIS_HOST"]
    assert run.environment["AEGIS_TIME"] == event["@timestamp"]
    others = {"AEGIS_CMDLINE", "AEGIS_HOST", "AEGIS_TIME", "AEGIS_UNIT", "AEGIS_SRC", "AEGIS_SPT"}
    assert set(run.environment) - set(wanted) <= others


def test_hook_script_gets_the_event_on_stdin_and_runs_in_the_root_directory(
    house: House, programs: Programs
) -> None:
    """The exact text is in the JSON; the working directory is not the agent's."""
    outcome = programs.curl("curl", "http://127.0.0.1:8087/$(id)")
    run = hook_run(house, outcome)
    event = json.loads(run.stdin)
    assert field(event, "process.pid") == outcome.pid
    assert field(event, "process.command_line").endswith("/$(id)")
    assert field(event, "event.id") == run.environment["AEGIS_EVENT_ID"]
    assert run.directory == "/"


def test_a_rule_without_notify_runs_no_script(house: House, programs: Programs) -> None:
    """``log`` and ``block`` alone do not notify."""
    noisy = programs.curl("curl", "http://127.0.0.1:8087/")
    silent = programs.run("ncat", "-w", "3", "127.0.0.1", "8087")
    after = programs.curl("curl", "http://127.0.0.1:8087/")
    hook_run(house, noisy)
    hook_run(house, after)  # scripts start in the order of events
    assert not house.hooks.has_run(str(silent.pid))


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ncat", "-w", "3", "127.0.0.1"], id="ncat"),
        pytest.param(["client.py"], id="python-script-by-cmdline"),
        pytest.param(["busybox", "nc", "-w", "3", "127.0.0.1"], id="busybox"),
    ],
)
def test_real_programs_keep_to_their_port(
    command: list[str], house: House, workshop: Workshop, programs: Programs, servers: Servers
) -> None:
    """Each real program reaches its one port and is refused the next by the kernel."""
    if command == ["client.py"]:
        command = [str(workshop.bin / "client.py")]
    before, forbidden = servers.connections(8086), servers.reached(8087)
    allowed = programs.run(*command, "8086")
    assert allowed.code == 0, allowed.stderr
    assert servers.connections(8086) == before + 1
    since = house.agent.mark()
    refused = programs.run(*command, "8087")
    assert refused.code != 0
    assert "Operation not permitted" in refused.stderr
    assert servers.reached(8087) == forbidden
    [event] = house.agent.settled_events(since, process__pid=refused.pid)
    assert field(event, "aegis.verdict") == "blocked"


@pytest.mark.parametrize("form", ["tcp", "udp-send", "fastopen", "uring-async", "thread"])
def test_a_killed_program_is_gone_and_its_packet_never_left(
    form: str, house: House, programs: Programs, servers: Servers
) -> None:
    """``kill`` refuses first and kills second, whichever way the program tried."""
    before, since = servers.reached(8087), house.agent.mark()
    talk = programs.talk(house.killed)
    assert talk.say("tcp 127.0.0.1 8086") == "OK"
    assert talk.say(f"{form} 127.0.0.1 8087") in {"EPERM", ""}
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{talk.pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # a zombie has no exe
    assert talk.end() == -signal.SIGKILL
    assert servers.reached(8087) == before
    event = house.agent.wait_event(since, process__pid=talk.pid, aegis__verdict="blocked")
    assert field(event, "aegis.actions") == ["log", "kill"]
    assert field(event, "rule.name") == house.policy.rule(f'path = "{house.killed}"')


def test_a_udp_connect_is_refused_but_never_kills(house: House, programs: Programs) -> None:
    """getaddrinfo() connects UDP sockets to every candidate: that must not be deadly."""
    talk, since = programs.talk(house.killed), house.agent.mark()
    assert talk.say("udp-connect 127.0.0.1 8087") == "EPERM"
    [event] = house.agent.settled_events(since, process__pid=talk.pid)
    assert field(event, "aegis.verdict") == "blocked"
    assert talk.say("tcp 127.0.0.1 8086") == "OK"
    assert talk.end() == 0


def test_an_event_without_block_reports_and_lets_pass(
    house: House, programs: Programs, servers: Servers
) -> None:
    """``actions = ["log"]`` only reports: the verdict says ``allowed``."""
    before, since = servers.connections(8087), house.agent.mark()
    outcome = programs.run(house.reported, "tcp", "127.0.0.1", "8087")
    assert outcome.word == "OK"
    assert servers.connections(8087) == before + 1
    [event] = house.agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "aegis.verdict") == "allowed"
    assert field(event, "aegis.reason") == "rule-denies"


def test_a_program_without_a_rule_is_allowed_and_reported(
    house: House, workshop: Workshop, programs: Programs
) -> None:
    """Nobody configured it, so nobody forbade it; but someone hears of it."""
    since = house.agent.mark()
    outcome = programs.run(workshop.install("stranger"), "tcp", "127.0.0.1", "8087")
    assert outcome.word == "OK"
    [event] = house.agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "rule.name") == "unconfigured"
    assert field(event, "aegis.verdict") == "allowed"
    assert field(event, "aegis.actions") == ["log"]
    assert field(event, "event.outcome") == "success"
