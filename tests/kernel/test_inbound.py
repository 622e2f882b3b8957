# SPDX-License-Identifier: Apache-2.0
"""Who may come in: ports, peers, answers; real servers, real clients."""

import errno
from collections.abc import Iterator

import pytest

from tests.kernel.agent import matches
from tests.kernel.conftest import Agents
from tests.kernel.hooks import Hooks
from tests.kernel.inbound import POLICY, Inbound, Server
from tests.kernel.network import PRIVATE4, REMOTE4, REMOTE6, Network
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop


@pytest.fixture
def inbound(
    agents: Agents, workshop: Workshop, programs: Programs, network: Network
) -> Iterator[Inbound]:
    made = Inbound(agents, workshop, programs, network)
    made.apply()
    yield made
    made.end()


def test_a_listed_port_may_be_listened_on_by_anyone_who_comes(inbound: Inbound) -> None:
    """And by v4 and v6 alike: the listener is dual-stack. Nothing is reported."""
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-portly", "tcp", "::", 7001)
    assert inbound.connects("127.0.0.1", "127.0.0.1", port)
    assert inbound.connects(REMOTE4, REMOTE4, port)
    assert inbound.connects(REMOTE6, REMOTE6, port)
    assert not inbound.agent.settled_events(mark, process__pid=server.pid)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["::", "::1", "::ffff:127.0.0.1"])
def test_an_unlisted_port_cannot_be_bound(inbound: Inbound, kind: str, address: str) -> None:
    """EPERM, and an event that says which program wanted which port."""
    mark = inbound.agent.mark()
    port = 7003
    server = inbound.serve("serves-portly", kind, address, port)
    assert server.says() == f"refused {errno.EPERM}"
    event = inbound.agent.wait_event(mark, process__pid=server.pid)
    assert matches(
        event,
        network__direction="ingress",
        network__transport=kind,
        destination__port=port,
        event__action="listen-blocked",
        aegis__verdict="blocked",
        aegis__hook="bind",
        aegis__scope="listen",
        rule__name=inbound.policy.rule('exe = "serves-portly"'),
    )


def test_protocols_of_a_listed_port_are_told_apart(inbound: Inbound) -> None:
    _, port = inbound.ready("serves-portly", "udp", "::", 7002)
    assert inbound.answers("127.0.0.1", "127.0.0.1", port)
    assert inbound.serve("serves-portly", "tcp", "::", 7002).says() == f"refused {errno.EPERM}"


def test_listen_without_bind_is_seen_and_nobody_gets_through(inbound: Inbound) -> None:
    """The kernel chooses the port, and no hook may refuse that; packets are dropped."""
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-portly", "tcp", "::", 0)
    event = inbound.agent.wait_event(mark, process__pid=server.pid)
    assert matches(event, aegis__hook="listen", aegis__verdict="blocked", destination__port=port)
    assert inbound.keeps_out("127.0.0.1", "127.0.0.1", port)
    assert server.said_nothing()


def test_a_peer_that_is_not_listed_never_completes_a_handshake(inbound: Inbound) -> None:
    """accept() does not return for it; the event names the server, the peer and our port."""
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-choosy", "tcp", "::", 7010)
    assert inbound.keeps_out(REMOTE4, REMOTE4, port)
    assert server.said_nothing()
    event = inbound.agent.wait_event(mark, process__pid=server.pid)
    assert matches(
        event,
        network__direction="ingress",
        source__ip=REMOTE4,
        destination__ip=REMOTE4,
        destination__port=port,
        aegis__hook="ingress",
        aegis__scope="peer",
        aegis__verdict="blocked",
    )
    assert inbound.connects(PRIVATE4, PRIVATE4, port)
    assert inbound.connects(REMOTE6, REMOTE6, port)
    assert [server.says().split()[0] for _ in range(2)] == ["peer", "peer"]


def test_a_datagram_of_an_unlisted_peer_is_not_received(inbound: Inbound) -> None:
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-choosy", "udp", "::", 7011)
    assert inbound.is_silent_to(REMOTE4, REMOTE4, port)
    assert server.said_nothing()
    event = inbound.agent.wait_event(mark, process__pid=server.pid)
    assert matches(event, aegis__hook="ingress", aegis__scope="peer", source__ip=REMOTE4)
    assert inbound.answers(PRIVATE4, PRIVATE4, port)


def test_a_udp_server_may_answer_whoever_spoke_to_it(inbound: Inbound) -> None:
    """Whatever the peer's port, which its own outbound rule does not list."""
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-free", "udp", "::", 7020)
    assert inbound.answers(REMOTE4, REMOTE4, port)
    assert inbound.answers(REMOTE6, REMOTE6, port)
    assert not inbound.agent.settled_events(mark, process__pid=server.pid)


def test_in_observe_mode_nothing_is_refused_and_all_is_said(inbound: Inbound) -> None:
    inbound.apply(mode="observe")
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-choosy", "tcp", "::", 7012)
    assert inbound.connects(REMOTE4, REMOTE4, port)
    event = inbound.agent.wait_event(mark, process__pid=server.pid)
    assert matches(event, aegis__hook="accept", aegis__verdict="would-block", source__ip=REMOTE4)
    wrong = inbound.serve("serves-portly", "tcp", "::", 7004)
    assert wrong.says() == "ready 7004"
    event = inbound.agent.wait_event(mark, process__pid=wrong.pid)
    assert matches(event, aegis__hook="bind", aegis__verdict="would-block")


def test_an_unconfigured_program_that_starts_listening_is_an_event(inbound: Inbound) -> None:
    """And its first connection is another; the ones after that are silenced."""
    mark = inbound.agent.mark()
    server, port = inbound.ready("stranger-tcp", "tcp", "::", 7030)
    event = inbound.agent.wait_event(mark, process__pid=server.pid)
    assert matches(
        event,
        aegis__hook="listen",
        aegis__verdict="allowed",
        aegis__reason="unconfigured",
        event__action="listen-allowed",
        destination__port=port,
    )
    mark = inbound.agent.mark()
    for _ in range(3):
        assert inbound.connects(PRIVATE4, PRIVATE4, port)
    events = inbound.agent.settled_events(mark, process__pid=server.pid)
    assert [matches(e, aegis__hook="accept", source__ip=PRIVATE4) for e in events] == [True]


def test_an_unconfigured_programs_first_datagram_is_an_event(inbound: Inbound) -> None:
    mark = inbound.agent.mark()
    server, port = inbound.ready("stranger-udp", "udp", "::", 7031)
    assert inbound.answers(REMOTE4, REMOTE4, port)
    assert inbound.answers(REMOTE4, REMOTE4, port)
    events = inbound.agent.settled_events(mark, process__pid=server.pid)
    [event] = [e for e in events if matches(e, network__direction="ingress")]
    assert matches(event, aegis__hook="recvmsg", aegis__verdict="allowed", source__ip=REMOTE4)


def test_with_inbound_false_unconfigured_programs_are_left_alone(inbound: Inbound) -> None:
    """What a rule says of inbound stays in force."""
    inbound.apply(inbound="false")
    mark = inbound.agent.mark()
    server, port = inbound.ready("stranger-off", "tcp", "::", 7032)
    assert inbound.connects(PRIVATE4, PRIVATE4, port)
    assert not inbound.agent.settled_events(mark, process__pid=server.pid)
    assert inbound.serve("serves-portly", "tcp", "::", 7003).says() == f"refused {errno.EPERM}"


def test_each_connection_is_reported_with_detent_zero(inbound: Inbound) -> None:
    mark = inbound.agent.mark()
    server, port = inbound.ready("serves-watched", "tcp", "::", 7040)
    for _ in range(3):
        assert inbound.connects(PRIVATE4, PRIVATE4, port)
    events = inbound.agent.settled_events(mark, process__pid=server.pid)
    hooks = [event["aegis"]["hook"] for event in events]
    assert hooks == ["listen", "accept", "accept", "accept"]


def test_two_programs_on_one_port_are_told_apart(inbound: Inbound) -> None:
    """On an address each; and who takes the place of the one that ended."""
    inbound.agent, _ = inbound.share('[global]\nunconfigured_actions = ["log"]\ndetent = 0\n')
    first = inbound.ready("first-on-port", "tcp", "::ffff:127.0.0.1", 7071)[0]
    others = {PRIVATE4: inbound.ready("second-on-port", "tcp", f"::ffff:{PRIVATE4}", 7071)[0]}
    mark = inbound.agent.mark()
    for address, server in {"127.0.0.1": first, **others}.items():
        assert inbound.connects(REMOTE4, address, 7071)
        event = inbound.agent.wait_event(mark, process__pid=server.pid, aegis__hook="accept")
        assert matches(event, destination__ip=address, destination__port=7071)
    first.process.kill()
    first.process.wait()
    mark = inbound.agent.mark()
    others["127.0.0.2"] = inbound.ready("third-on-port", "tcp", "::ffff:127.0.0.2", 7071)[0]
    for address, server in others.items():
        assert inbound.connects(REMOTE4, address, 7071)
        event = inbound.agent.wait_event(mark, process__pid=server.pid, aegis__hook="accept")
        assert matches(event, destination__ip=address)


@pytest.mark.parametrize("by_init", [True, False])
def test_socket_activation(by_init: bool, inbound: Inbound, programs: Programs) -> None:
    """An init listens, the service it starts accepts: the service's rule counts, from the

    first connection on. What anybody else's child inherits stays the parent's.
    """
    mark = inbound.agent.mark()
    opener, service = inbound.program("opens-for-others"), inbound.program("serves-choosy")
    around = ("unshare", "--pid", "--fork", "--kill-child") if by_init else ()
    port = 7061 + by_init
    server = Server(programs.start(*around, opener, "fork-tcp", str(service), str(port)))
    inbound.add(server)
    assert server.says() == f"ready {port}"
    stands = inbound.keeps_out if by_init else inbound.connects
    assert stands(REMOTE4, REMOTE4, port)
    assert inbound.connects(PRIVATE4, PRIVATE4, port)
    if by_init:
        event = inbound.agent.wait_event(mark, aegis__hook="ingress", destination__port=port)
        assert matches(event, process__name="serves-choosy", source__ip=REMOTE4)


def test_a_socket_that_was_handed_over_is_the_takers(inbound: Inbound, programs: Programs) -> None:
    """As systemd does it: one process binds, another receives; the second's rule counts."""
    mark = inbound.agent.mark()
    opener = inbound.program("opens-for-others")
    taker = inbound.program("serves-choosy")
    server = Server(programs.start(opener, "exec-udp", str(taker), "7060"))
    inbound.add(server)
    assert server.says() == "ready 7060"
    # The first datagram tells who takes them.
    assert inbound.answers(PRIVATE4, PRIVATE4, 7060)
    assert inbound.is_silent_to(REMOTE4, REMOTE4, 7060)
    event = inbound.agent.wait_event(mark, aegis__hook="ingress", process__pid=server.pid)
    assert matches(event, process__name="serves-choosy", source__ip=REMOTE4)


def test_a_hook_script_is_told_who_came_to_whom(inbound: Inbound, workshop: Workshop) -> None:
    """DST and DPT are our own, SRC and SPT the peer's."""
    hooks = Hooks(workshop.new_folder())
    text = POLICY.format(mode="enforce", inbound="true")
    text = text.replace("[global]", f'[global]\nscript_dirs = ["{hooks.directory}"]', 1)
    _, policy = inbound.share(text.replace('["log", "block"]', '["notify", "block"]'))
    server, port = inbound.ready("serves-choosy", "tcp", "::", 7070)
    assert inbound.keeps_out(REMOTE4, REMOTE4, port)
    run = hooks.wait(str(server.pid))
    wanted = {
        "AEGIS_DST": REMOTE4,
        "AEGIS_DPT": str(port),
        "AEGIS_SRC": REMOTE4,
        "AEGIS_PROTO": "tcp",
        "AEGIS_DIRECTION": "in",
        "AEGIS_VERDICT": "blocked",
        "AEGIS_RULE": policy.rule('exe = "serves-choosy"'),
    }
    assert {name: run.environment.get(name) for name in wanted} == wanted
    assert int(run.environment["AEGIS_SPT"]) not in (0, port)
