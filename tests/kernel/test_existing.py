# SPDX-License-Identifier: Apache-2.0
"""What was open before the agent: judged by the policy, told, and closed only if it says so."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4, REMOTE6, Network
from tests.kernel.old import OFF, ON, OURS, POLICY, Old, Scene
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop


@pytest.fixture
def scene(
    agents: Agents, workshop: Workshop, programs: Programs, network: Network
) -> Iterator[Scene]:
    made = Scene(agents, workshop, programs, network)
    try:
        yield made
    finally:
        made.close()


def events_of(agent: Agent, old: Old) -> list[Event]:
    return agent.settled_events(process__pid=old.pid)


def the_event(agent: Agent, old: Old) -> Event:
    [event] = events_of(agent, old)
    assert field(event, "aegis.existing") is True
    assert field(event, "aegis.hook") == "existing"
    return event


def test_what_is_off_the_map_is_told_and_left_alone(scene: Scene) -> None:
    """Each kind of flow, once; nothing is cut or killed, and what is on the map is silent."""
    off = scene.tcp("old-client", OFF)
    off6 = scene.tcp("old-killed", OFF, REMOTE6)
    told = scene.tcp("old-told", OFF)
    udp = scene.udp("old-client", 9703)
    quiet = [
        scene.tcp("old-client", ON),
        scene.tcp("old-ignored", OFF),
        scene.tcp("old-named", OFF),
        scene.tcp("old-stranger", OFF),
    ]
    agent = scene.govern()

    event = the_event(agent, off)
    assert field(event, "destination") == {"ip": REMOTE4, "port": OFF}
    assert field(event, "source.ip") == REMOTE4
    assert field(event, "aegis.verdict") == "would-block"
    assert field(event, "aegis.identity")[-1] == "seeded"
    assert str(field(event, "process.executable")).endswith("/bin/old-client")
    assert field(the_event(agent, off6), "destination.ip") == REMOTE6
    assert field(the_event(agent, off6), "aegis.would_kill") is True
    assert field(the_event(agent, told), "aegis.verdict") == "allowed"
    assert field(the_event(agent, udp), "network.transport") == "udp"
    assert [events_of(agent, old) for old in quiet] == [[]] * 4
    assert all(old.is_connected() for old in (off, off6, told, *quiet))
    tally = agent.status()["agent"]["existing"]
    assert (tally["off_the_map"], tally["severed"], tally["failed"]) == (4, 0, 0)


def test_sever_existing_closes_what_the_policy_refuses_and_only_that(scene: Scene) -> None:
    """The peer sees a reset; the program lives, and so does what is not its own to lose."""
    refused = scene.tcp("old-client", OFF)
    killed = scene.tcp("old-killed", OFF, REMOTE6)
    udp = scene.udp("old-client", 9703)
    multipath = scene.python(
        "old-multipath",
        OFF,
        f"import socket; s = socket.socket(2, 1, 262); s.connect(('{REMOTE4}', {OFF})); input()",
    )
    living = [
        scene.tcp("old-client", ON),
        scene.tcp("old-told", OFF),
        scene.tcp("old-ignored", OFF),
    ]
    agent = scene.govern(sever="true")
    assert not refused.is_connected()
    assert not killed.is_connected()
    assert field(the_event(agent, refused), "aegis.verdict") == "blocked"
    assert field(the_event(agent, killed), "aegis.verdict") == "blocked"
    assert field(the_event(agent, udp), "aegis.verdict") == "blocked"
    assert [old.is_connected() for old in living] == [True] * 3
    assert not multipath.is_connected()
    assert agent.settled_events(aegis__notice="process-killed") == []
    assert agent.settled_events(aegis__notice="sever-failed") == []
    assert agent.status()["agent"]["existing"]["severed"] == 4


def test_observe_mode_severs_nothing(scene: Scene) -> None:
    """Whatever ``sever_existing`` says."""
    refused = scene.tcp("old-client", OFF)
    agent = scene.govern(mode="observe", sever="true")
    assert field(the_event(agent, refused), "aegis.verdict") == "would-block"
    assert refused.is_connected()


def test_what_an_allowed_program_holds_too_is_not_cut(scene: Scene) -> None:
    """A child that merely inherited the connection is told of, its parent keeps it."""
    holder = scene.workshop.install("old-killed-child", "/usr/bin/sleep")
    parent = scene.python(
        "old-parent",
        OFF,
        "import socket, subprocess as sp;"
        f"s = socket.create_connection(('{REMOTE4}', {OFF})); s.set_inheritable(True);"
        f"p = sp.Popen(['{holder}', '999'], close_fds=False, stdout=sp.DEVNULL); print(p.pid);"
        "print(s.makefile().readline(), end=''); p.kill()",
    )
    assert parent.process.stdout is not None
    child = int(parent.process.stdout.readline())
    agent = scene.govern(sever="true")
    [event] = agent.settled_events(process__pid=child)
    assert field(event, "aegis.verdict") == "would-block"
    assert field(event, "aegis.spared") == "shared"
    assert events_of(agent, parent) == []
    assert parent.is_connected()


_LOGIN = """\
import os, signal, socket, subprocess, sys
place, network = sys.argv[1:3]
open(place + "/cgroup.procs", "w").write(str(os.getpid()))
connection = socket.create_connection(("{address}", {port}))
agent = subprocess.Popen(["nsenter", "--net=" + network, *sys.argv[3:]])
signal.signal(signal.SIGTERM, lambda *_: agent.terminate())
sys.exit(agent.wait())
"""


def test_the_login_that_started_the_agent_is_spared(scene: Scene, network: Network) -> None:
    """Whom the agent descends from keeps its connections, though its rule refuses them."""
    python = scene.workshop.install("old-login", Path("/usr/bin/python3").resolve())
    script = scene.workshop.script("login.py", _LOGIN.format(address=REMOTE4, port=OFF))
    inside = f"/proc/{os.getpid()}/task/{network.call(threading.get_native_id)}/ns/net"
    agent = scene.govern(
        sever="true",
        wrapper=(
            *("nsenter", f"--net={inside}", "env", "PYTHONHOME=/usr", str(python), str(script)),
            *(str(scene.place), f"/proc/{os.getpid()}/ns/net", "env", "--unset=PYTHONHOME"),
        ),
    )
    [event] = agent.settled_events(process__name="old-login")
    assert field(event, "aegis.spared") == "login"
    assert field(event, "aegis.verdict") == "would-block"
    peer = scene.server.accept(OFF)
    assert select.select([peer], [], [], 0) == ([], [], [])
    assert agent.status()["agent"]["existing"]["spared"] == 1


def test_detent_holds_over_a_restart_of_the_agent(scene: Scene) -> None:
    """The same connection is no news to the next agent."""
    off = scene.tcp("old-client", OFF)
    agent = scene.govern()
    the_event(agent, off)
    agent.stop()
    since = agent.mark()
    agent.start()
    agent.wait_event(since, aegis__notice="existing-checked")
    assert agent.settled_events(since, process__pid=off.pid) == []
    assert agent.status()["agent"]["existing"]["off_the_map"] == 1


def test_what_is_closed_is_told_whatever_the_detent(scene: Scene) -> None:
    """It was reported by an earlier agent; that it is gone now is news."""
    off = scene.tcp("old-client", OFF)
    agent = scene.govern()
    the_event(agent, off)
    agent.stop()
    assert scene.policy is not None
    scene.policy.replace(POLICY.format(mode="enforce", sever="true"))
    since = agent.mark()
    agent.start()
    agent.wait_event(since, aegis__notice="existing-checked")
    [event] = agent.settled_events(since, process__pid=off.pid)
    assert field(event, "aegis.verdict") == "blocked"
    assert not off.is_connected()


def came_in(events: list[Event]) -> dict[tuple[str, bool], Event]:
    """By transport, and whether somebody came yet; of listeners that share a port the first."""
    return {
        (field(event, "network.transport"), field(event, "source") is not None): event
        for event in events
    }


def test_who_came_in_and_where_is_judged_by_listen_and_peers(scene: Scene) -> None:
    """A listener off its ports and a peer off its list; the direction is theirs."""
    server, choosy = scene.serve("old-server"), scene.serve("old-choosy", OURS + 1)
    right = scene.serve("old-server", ON + 20)
    agent = scene.govern()
    events = came_in(events_of(agent, server))
    assert events.keys() == {("tcp", False), ("tcp", True), ("udp", False)}
    for event in events.values():
        assert field(event, "network.direction") == "ingress"
        assert field(event, "destination.port") == OURS
        assert field(event, "aegis.verdict") == "would-block"
    assert field(events["tcp", True], "source.ip") == REMOTE4
    [event] = events_of(agent, choosy)
    assert field(event, "aegis.scope") == "peer"
    assert field(event, "source.ip") == REMOTE4
    assert [old.is_connected() for old in (server, choosy, right)] == [True] * 3


def test_severed_is_what_came_in_where_nothing_may(scene: Scene, network: Network) -> None:
    """The client sees a reset, the port is closed; sshd keeps its own."""
    server = scene.serve("old-server")
    sshd = scene.serve("sshd", OURS + 2)
    agent = scene.govern(sever="true")
    events = came_in(events_of(agent, server))
    assert len(events) == 3
    assert [field(event, "aegis.verdict") for event in events.values()] == ["blocked"] * 3
    assert not server.is_connected()
    with pytest.raises(ConnectionRefusedError):
        network.call(socket.create_connection, (REMOTE4, OURS))
    spared = came_in(events_of(agent, sshd)).values()
    assert [field(event, "aegis.spared") for event in spared] == ["login"] * 3
    assert sshd.is_connected()
    assert agent.settled_events(aegis__notice="sever-failed") == []
