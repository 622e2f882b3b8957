# SPDX-License-Identifier: Apache-2.0
"""The ways out the prober knows, and what each delivers to a server."""

from dataclasses import dataclass

from tests.kernel.settings import AT_ROOT

# Loopback in each spelling; the kernel sends the unspecified address to loopback.
ADDRESSES = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::")


@dataclass(frozen=True)
class Form:
    name: str
    connections: int = 0
    datagrams: int = 0
    ipv4_only: bool = False

    def exists_for(self, address: str) -> bool:
        return not (self.ipv4_only and ":" in address)

    @property
    def transport(self) -> str:
        return "tcp" if self.connections else "udp"


FORMS = (
    Form("tcp", connections=1),
    Form("tcp-mapped", connections=1, ipv4_only=True),
    Form("udp-connect", datagrams=1),
    Form("udp-send", datagrams=1),
    Form("udp-mapped", datagrams=1, ipv4_only=True),
    Form("udp-sendmsg", datagrams=1),
    Form("udp-sendmmsg", datagrams=2),
    Form("udp-connected-other", datagrams=1),
    Form("udp-unspec", datagrams=1, ipv4_only=True),
    Form("udp-reconnect", datagrams=1),
    Form("fastopen", connections=1),
    Form("fastopen-connect", connections=1),
    Form("uring-connect", connections=1),
    Form("uring-async", connections=1),
    Form("uring-sqpoll", connections=1),
    Form("uring-sendmsg", datagrams=1),
    Form("thread", connections=1),
    Form("fork", connections=1),
    Form("orphan", connections=1),
    Form("vfork-exec", connections=1),
    Form("exec-in-thread", connections=1),
)

# Emulated, each case takes its second: the spellings of an address are tried on the host.
_TRIED = ADDRESSES[:1] if AT_ROOT else ADDRESSES
CASES = [(form, address) for form in FORMS for address in _TRIED if form.exists_for(address)]
CASE_IDS = [f"{form.name}-{address}" for form, address in CASES]
