# SPDX-License-Identifier: Apache-2.0
"""What a notification says of each kind of event, also of those that go nowhere."""

from ipaddress import ip_address
from typing import Any

import pytest

from aegis.actions.message import event_message
from aegis.events.context import Context
from aegis.events.ecs import to_ecs
from aegis.events.event import Hook
from aegis.policy.model import Direction
from tests.events.factory import make_event

NAMED = ip_address("192.0.2.9")
CONTEXT = Context({NAMED: "bob.example"})
SOCKET: dict[str, Any] = {
    "hook": Hook.SOCKET,
    "transport": "sctp",
    "destination": None,
    "destination_port": 0,
}
IN: dict[str, Any] = {"direction": Direction.IN, "source": ip_address("198.51.100.1")}


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize("direction", Direction)
def test_every_event_can_be_told(hook: Hook, direction: Direction) -> None:
    """The kernel sends no destination with a socket that was not made."""
    changes = SOCKET if hook is Hook.SOCKET else {"hook": hook}
    message = event_message(to_ecs(make_event(direction=direction, **changes), CONTEXT))
    assert message.title.startswith("[aegis] blocked on ") and ": curl " in message.title
    assert message.as_json()["event"] is not None


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({}, "curl -> 192.0.2.7:443/tcp"),
        ({"destination": NAMED}, "curl -> bob.example:443/tcp (192.0.2.9)"),
        ({"destination": ip_address("2001:db8::1")}, "curl -> [2001:db8::1]:443/tcp"),
        (SOCKET, "curl makes a socket of sctp"),
        ({"hook": Hook.LISTEN}, "curl listens on 443/tcp"),
        ({"hook": Hook.ACCEPT, **IN}, "curl <- 198.51.100.1 on 443/tcp"),
        ({"hook": Hook.ACCEPT, **IN, "source": None}, "curl <- ? on 443/tcp"),
    ],
)
def test_the_title_says_what_was_done(changes: dict[str, Any], where: str) -> None:
    title = event_message(to_ecs(make_event(**changes), CONTEXT)).title
    assert title.endswith(f": {where}")
