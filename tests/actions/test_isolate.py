# SPDX-License-Identifier: Apache-2.0
"""The shipped script that isolates a host, in a network of its own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actions.conftest import Write
from tests.actions.hooks import Hooks
from tests.kernel.settings import REQUIRED

EXAMPLE = Path(__file__).parents[2] / "etc" / "scripts" / "isolate"
NFT = Path("/usr/sbin/nft")
# Addresses that lead somewhere: to a cable at the far end of which nobody answers.
NETWORK = (
    "set -e; ip link set lo up; ip link add away type veth peer far; ip link set away up;"
    "ip link set far up;"
    "ip addr add 192.0.2.1/24 dev away; ip addr add 2001:db8::1/64 dev away nodad;"
    "echo ready; exec sleep 600"
)
# Says of each address whether a datagram may leave for it.
SEND = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"x", (address, 9))
            print("sent")
        except PermissionError:
            print("refused")
"""


class Network:
    """A network namespace; *prefix* makes a command run in it."""

    def __init__(self, pid: int) -> None:
        self.prefix = ["/usr/bin/nsenter", f"--net=/proc/{pid}/ns/net"]

    def run(self, *command: str) -> str:
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=True)
        return done.stdout

    def send(self, *addresses: str) -> list[str]:
        return self.run("/usr/bin/python3", "-c", SEND, *addresses).split()


@pytest.fixture
def network(script_dir: Path) -> Iterator[Network]:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", NETWORK], stdout=subprocess.PIPE) as own:
        assert own.stdout and own.stdout.readline() == b"ready\n"
        made = Network(own.pid)
        if (
            not NFT.exists()
            or subprocess.run([*made.prefix, NFT, "add", "table", "x"], check=False).returncode
        ):
            own.kill()
            missing = "nftables is not installed, or not in this kernel"
            if REQUIRED:
                pytest.fail(missing)
            pytest.skip(missing)
        yield made
        own.kill()


def test_an_isolated_host_reaches_itself_and_its_administrators_only(
    hooks: Hooks, write_script: Write, network: Network
) -> None:
    text = EXAMPLE.read_text().replace("/usr/sbin/nft", " ".join([*network.prefix, str(NFT)]))
    assert "ADMINS='' #" in text
    write_script("isolate", text.replace("ADMINS=''", "ADMINS='192.0.2.10 2001:db8::10'"))
    places = ("192.0.2.2", "2001:db8::2", "127.0.0.1", "::1")
    assert network.send(*places) == ["sent"] * 4
    hooks.run(names=("isolate",))
    assert hooks.output().startswith("isolated after uid 0 reached for 192.0.2.7 port 443")
    assert network.send(*places) == ["refused", "refused", "sent", "sent"]
    rules = network.run(str(NFT), "list", "table", "inet", "aegis_isolate")
    assert "ip saddr 192.0.2.10 tcp dport 22 accept" in rules
    assert "ip6 daddr 2001:db8::10 tcp sport 22 accept" in rules
    hooks.run(names=("isolate",))  # a second event finds the host isolated, and changes nothing
    assert network.run(str(NFT), "list", "table", "inet", "aegis_isolate") == rules
    network.run(str(NFT), "delete", "table", "inet", "aegis_isolate")
    assert network.send(*places) == ["sent"] * 4
