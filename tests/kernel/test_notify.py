# SPDX-License-Identifier: Apache-2.0
"""``notify``, from the refused connection to the web server that is told of it."""

import socket
import time
from collections.abc import Callable

import pytest

from tests.actions.webhook import serve_webhook
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.settings import NOBODY, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[global]
unconfigured_actions = ["log"]
detent = 0

[notify]
urls_file = "{urls}"
user = {user}

[[app]]
exe = "curl"
ports = ["8086"]
actions = ["log", "notify", "block"]

[[app]]
exe = "busybox"
ports = ["8086"]
actions = ["log", "block"]
"""


@pytest.mark.usefixtures("seen_by_nobody")
def test_a_refused_connection_is_notified_of_once(
    agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """With its rule and verdict; a rule without ``notify`` is not told of."""
    urls = workshop.new_folder() / "urls"
    with serve_webhook() as webhook:
        urls.write_text(f"{webhook.url}\n")
        urls.chmod(0o600)
        agent, policy = agents.share(POLICY.format(urls=urls, user=NOBODY))
        programs.run("busybox", "nc", "-w", "3", "127.0.0.1", "8087")
        outcome = programs.curl("curl", "http://127.0.0.1:8087/")
        _wait_for(lambda: agent.status()["agent"]["notifications"] == {"sent": 1})
        [body] = webhook.received
        assert body["event"]["process"]["pid"] == outcome.pid
        assert body["event"]["rule"]["name"] == policy.rule('exe = "curl"')
        assert body["event"]["aegis"]["verdict"] == "blocked"


def test_a_socket_without_a_destination_is_notified_of(
    agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """Whoever may make one must not end the agent by it."""
    urls = workshop.new_folder() / "urls"
    with serve_webhook() as webhook:
        urls.write_text(f"{webhook.url}\n")
        urls.chmod(0o600)
        text = POLICY.format(urls=urls, user=NOBODY).replace("curl", "maker-told")
        agent, _ = agents.share(text)
        raw = map(int, (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP))
        programs.run(workshop.install("maker-told", workshop.maker), *map(str, raw))
        _wait_for(lambda: bool(webhook.received))
        assert webhook.received[0]["title"].endswith(": maker-told makes a socket of udp")
        assert agent.status()["agent"]["defects"] == 0


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nobody was notified"
        time.sleep(0.02)
