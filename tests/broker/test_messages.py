# SPDX-License-Identifier: Apache-2.0
"""What agent and brokers say: each message comes out as it went in, and nothing else is one."""

import json
import random
from typing import Any

import pytest

from aegis.broker.messages import (
    MESSAGE_MAX,
    Attach,
    Attached,
    Follow,
    Followed,
    Found,
    Kill,
    Killed,
    LookUp,
    Message,
    Ran,
    Run,
    Sever,
    decode,
    encode,
)
from aegis.errors import BrokerError

KILL = Kill(7, 1, 2, 3, 4, 5, "/usr/bin/caf\udce9", False, False, ("sshd", "x"), 10, True)
RAN = Ran(3, 9, True, -9, True, 1234, "caf\udce9", 4, "no cgroup", "")
MESSAGES: list[Message] = [
    KILL,
    Killed(7, "killed", "", 3),
    Sever(1, 2, 6, 0, 99, "00ff", 22, "0a", 443, (1, 2)),
    LookUp(1, "bob.invalid"),
    Found(1, ("192.0.2.1", "2001:db8::1"), ""),
    Run(1, "/etc/aegis/scripts/x", {"A": "b"}, 30.0, 65534, "id", True),
    RAN,
    Follow("/usr/bin/caf\udce9"),
    Followed("/"),
    Attach(),
    Attached("no"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    """Also names that are no text."""
    assert decode(encode(message)) == message


def changed(**changes: Any) -> bytes:
    found = {**json.loads(encode(KILL)), **changes}
    return json.dumps({key: value for key, value in found.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"\xff\xfe", "no JSON", id="no-text"),
        pytest.param(b"[" * 100_000, "no JSON", id="too-deep"),
        pytest.param(b"[]", "version 1", id="no-object"),
        pytest.param(changed(v=2), "version 1", id="another-version"),
        pytest.param(changed(v=...), "version 1", id="no-version"),
        pytest.param(changed(kind="Reboot"), "no known kind", id="another-kind"),
        pytest.param(changed(kind=["Kill"]), "no known kind", id="kind-of-a-wrong-type"),
        pytest.param(changed(pid=...), "not its fields", id="a-field-less"),
        pytest.param(changed(signal=19), "not its fields", id="a-field-more"),
        pytest.param(changed(pid="7"), "pid is of a wrong type", id="text-for-a-number"),
        pytest.param(changed(pid=7.0), "pid is of a wrong type", id="fraction"),
        pytest.param(changed(pid=True), "pid is of a wrong type", id="truth-for-a-number"),
        pytest.param(changed(tree=1), "tree is of a wrong type", id="number-for-a-truth"),
        pytest.param(changed(never_kill="sshd"), "never_kill is of a wrong", id="no-list"),
        pytest.param(changed(never_kill=[1]), "never_kill is of a wrong", id="list-of-others"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BrokerError, match=reason):
        decode(data)


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(BrokerError, match="too long"):
        encode(LookUp(1, "x" * MESSAGE_MAX))


def test_damaged_messages_are_refused_and_nothing_worse() -> None:
    """Each of 20,000: a message, or an error that was meant."""
    source, refused = random.Random(6), 0  # noqa: S311 (a fixed seed)
    for _ in range(20_000):
        data = bytearray(encode(source.choice(MESSAGES)))
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            decode(bytes(data))
        except BrokerError:
            refused += 1
    assert refused > 10_000
