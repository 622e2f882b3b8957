# SPDX-License-Identifier: Apache-2.0
"""A name is a claim: files others can change get a rule's limits, not its permissions."""

import os
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE4_OTHER, REMOTE6
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY
from tests.kernel.workshop import Workshop

POLICY = f"""
[global]
detent = 0
unconfigured_actions = ["log"]

[whitelist]
ips = ["{REMOTE4_OTHER}"]
ports = ["8088"]
programs = ["daemon", "/usr/bin/curl"]
resolvers = false

[[app]]
exe = "telegraf"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "deployed"
ports = ["8086"]
untrusted_file = true
actions = ["log", "block"]

[[app]]
exe = "strict"
ports = ["8086"]
strict = true
actions = ["log", "block"]

[[app]]
exe = "skipped"
ignore = true
"""


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents) -> Agent:
    servers.open(8086, 8087, 8088)
    started, _ = agents.share(POLICY)
    return started


@pytest.fixture(params=["nobodys", "group-writable", "world-writable"])
def untrusted(request: pytest.FixtureRequest, workshop: Workshop) -> Path:
    """A ``telegraf`` that somebody else can change."""
    if request.param == "nobodys":
        return workshop.install("telegraf", owner=NOBODY)
    path = workshop.folder(f"of-{request.param}") / "telegraf"
    if not path.exists():
        path.write_bytes(workshop.prober.read_bytes())
    path.chmod(0o775 if request.param == "group-writable" else 0o757)
    return path


def test_trusted_file_gets_limits_and_permissions(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Root's own file of the name: the rule holds both ways, and the map is quiet."""
    since = agent.mark()
    telegraf = workshop.install("telegraf")
    allowed = programs.run(telegraf, "tcp", "127.0.0.1", "8086")
    assert allowed.word == "OK"
    assert programs.run(telegraf, "tcp", "127.0.0.1", "8087").word == "EPERM"
    assert agent.settled_events(since, process__pid=allowed.pid) == []


def test_untrusted_file_gets_the_limits(
    agent: Agent, untrusted: Path, programs: Programs, servers: Servers
) -> None:
    """What the rule refuses is refused to whoever bears the name."""
    before = servers.reached(8087)
    assert programs.run(untrusted, "tcp", "127.0.0.1", "8087").word == "EPERM"
    assert servers.reached(8087) == before


def test_untrusted_file_gets_no_permission(
    agent: Agent, untrusted: Path, programs: Programs
) -> None:
    """What the rule allows is treated as for an unconfigured program, and said."""
    since = agent.mark()
    outcome = programs.run(untrusted, "tcp", "127.0.0.1", "8086")
    assert outcome.word == "OK"  # unconfigured_actions only log
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "aegis.reason") == "untrusted"
    assert field(event, "aegis.verdict") == "allowed"
    assert "trusted" not in field(event, "aegis.identity")


def test_untrusted_file_lifts_that_when_the_rule_says_so(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """``untrusted_file = true`` is for software deployed under another owner."""
    since = agent.mark()
    deployed = workshop.install("deployed", owner=NOBODY)
    outcome = programs.run(deployed, "tcp", "127.0.0.1", "8086")
    assert outcome.word == "OK"
    assert agent.settled_events(since, process__pid=outcome.pid) == []
    assert programs.run(deployed, "tcp", "127.0.0.1", "8087").word == "EPERM"


def test_a_real_curl_owned_by_nobody_is_not_the_whitelisted_one(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """The whitelist's full path is about that file; a copy's connection is reported."""
    since = agent.mark()
    copy = workshop.install("curl", "/usr/bin/curl", owner=NOBODY)
    real = programs.curl("curl", "http://127.0.0.1:8087/")
    copied = programs.curl(copy, "http://127.0.0.1:8087/")
    assert (real.code, copied.code) == (0, 0)
    assert agent.settled_events(since, process__pid=real.pid) == []
    [event] = agent.settled_events(since, process__pid=copied.pid)
    assert field(event, "process.executable") == str(copy)


@pytest.mark.parametrize("name", ["daemon", "skipped"])
def test_naming_malware_like_a_silenced_program_gains_nothing(
    name: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """``whitelist.programs`` and ``ignore`` hold for trusted files only."""
    since = agent.mark()
    real = programs.run(workshop.install(name), "tcp", REMOTE4, "8087")
    fake = programs.run(workshop.install(name, owner=NOBODY), "tcp", REMOTE4, "8087")
    assert (real.word, fake.word) == ("OK", "OK")
    assert agent.settled_events(since, process__pid=real.pid) == []
    assert len(agent.settled_events(since, process__pid=fake.pid)) == 1


@pytest.mark.parametrize(
    ("address", "port"),
    [
        pytest.param(REMOTE4_OTHER, "1234", id="ip"),
        pytest.param(REMOTE6, "8088", id="port"),
    ],
)
def test_whitelisted_destination_is_allowed_and_quiet_for_every_program(
    address: str, port: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Also for a program whose own rule does not list it."""
    for name in ("telegraf", "nobody-configured"):
        since = agent.mark()
        outcome = programs.run(workshop.install(name), "tcp", address, port)
        assert outcome.word in {"OK", "ECONNREFUSED"}
        assert agent.settled_events(since, process__pid=outcome.pid) == []


def test_a_strict_rule_is_not_widened_by_the_whitelist(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """``strict = true``: only its own lists count."""
    strict = workshop.install("strict")
    assert programs.run(strict, "tcp", REMOTE4_OTHER, "1234").word == "EPERM"
    assert programs.run(strict, "tcp", REMOTE6, "8088").word == "EPERM"
    assert programs.run(strict, "tcp", REMOTE6, "8086").word == "OK"


def test_trust_is_taken_when_the_file_is_executed(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Handing the file to root afterwards does not make a running program trusted."""
    path = workshop.folder("of-late") / "telegraf"
    path.write_bytes(workshop.prober.read_bytes())
    path.chmod(0o755)
    os.chown(path, NOBODY, NOBODY)
    talk, since = programs.talk(path), agent.mark()
    assert talk.reaches("tcp", "127.0.0.1", 8086)  # also proves that it has been executed
    os.chown(path, 0, 0)
    assert talk.reaches("tcp", "127.0.0.1", 8086)
    events = agent.settled_events(since, process__pid=talk.pid)
    assert [field(event, "aegis.reason") for event in events] == ["untrusted", "untrusted"]
