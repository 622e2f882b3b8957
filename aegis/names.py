# SPDX-License-Identifier: Apache-2.0
"""What the names in a policy mean: resolved, kept a while, never widened silently.

Answers come from whoever runs the resolver, so a public name may not point into
this host or its network: that would turn a rule about bob.com into one about a
metadata service. Times are seconds of the boot clock.
"""

import asyncio
import queue
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from encodings import idna  # noqa: F401 getaddrinfo() would look for it among files
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from aegis.policy.address import normalise
from aegis.policy.model import Address, Entry, Policy, Resolution, Where

LINGER = 3600  # seconds an address is kept after it was last in an answer
ADDRESSES_MAX = 64  # of one name
WORKERS = 4

_PRIVATE_SUFFIXES = (".local", ".localdomain", ".lan", ".internal", ".home.arpa")
_KINDS: tuple[tuple[str, tuple[IPv4Network | IPv6Network, ...]], ...] = (
    ("an unspecified", (IPv4Network("0.0.0.0/8"), IPv6Network("::/128"))),
    ("a loopback", (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))),
    ("a link-local", (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))),
    ("a multicast", (IPv4Network("224.0.0.0/4"), IPv6Network("ff00::/8"))),
    ("a reserved", (IPv4Network("240.0.0.0/4"),)),
    (
        "a private",
        (
            IPv4Network("10.0.0.0/8"),
            IPv4Network("172.16.0.0/12"),
            IPv4Network("192.168.0.0/16"),
            IPv4Network("100.64.0.0/10"),  # shared by providers and clouds
            IPv6Network("fc00::/7"),
            IPv6Network("fec0::/10"),
        ),
    ),
)
_NAT64 = IPv6Network("64:ff9b::/96")  # its last four bytes are the real destination

Hosts = Mapping[str, frozenset[Address]]


def read_resolvers(path: str | Path = "/etc/resolv.conf") -> tuple[Address, ...]:
    """Return the nameservers of *path*, in order; none if it cannot be read."""
    found: dict[Address, None] = {}
    for words in _lines(path, comments="#;"):
        if len(words) > 1 and words[0] == "nameserver":
            address = parse_address(words[1])
            if address is not None:
                found.setdefault(address)
    return tuple(found)


def read_hosts(path: str | Path = "/etc/hosts") -> dict[str, frozenset[Address]]:
    """Return name → addresses of *path*; nothing if it cannot be read."""
    found: dict[str, set[Address]] = {}
    for words in _lines(path, comments="#"):
        address = parse_address(words[0])
        if address is not None:
            for name in words[1:]:
                found.setdefault(_canonical(name), set()).add(address)
    return {name: frozenset(addresses) for name, addresses in found.items()}


def names_in(policy: Policy) -> dict[str, tuple[Where, ...]]:
    """Return each name in the lists of *policy*, and where it is written."""
    listed: list[Entry] = [*policy.whitelist.ips]
    for rule in policy.rules:
        for entries in (rule.remotes, rule.locals, rule.peers):
            listed += entries or ()
    found: dict[str, list[Where]] = {}
    for entry in listed:
        if entry.name is not None:
            found.setdefault(entry.name, []).append(entry.where)
    return {name: tuple(places) for name, places in found.items()}


def is_public(name: str) -> bool:
    """Whether *name* is looked up in the world's DNS rather than in this network."""
    name = _canonical(name)
    return "." in name and not name.endswith(_PRIVATE_SUFFIXES)


def inner_kind(address: Address) -> str | None:
    """Return what *address* is if it is no address of the world: ``a private``, say."""
    address = normalise(address)
    if isinstance(address, IPv6Address) and address in _NAT64:
        address = ip_address(int(address) & 0xFFFFFFFF)
    for kind, networks in _KINDS:
        if any(address.version == net.version and address in net for net in networks):
            return kind
    return None


class NameBook:
    """What each name means now: pure state, fed with answers and the time.

    An address is kept for *linger* seconds after it was last in an answer, so
    that rotating answers do not cut off a client that holds an older one.
    """

    def __init__(
        self,
        hosts: Hosts | None = None,
        resolvers: tuple[Address, ...] = (),
        linger: float = LINGER,
    ) -> None:
        self.hosts: Hosts = hosts or {}
        self.resolvers = resolvers
        self._linger = linger
        self._seen: dict[str, dict[Address, float]] = {}

    def update(self, name: str, answers: Iterable[Address], now: float) -> tuple[str, ...]:
        """Take in one answer for *name*; return what was refused of it, and why, as text."""
        accepted, refused = self._screen(name, answers)
        held = self._seen.setdefault(name, {})
        held.update(dict.fromkeys(accepted, now))
        if len(held) > ADDRESSES_MAX:
            refused += self._cut(name, held)
        return tuple(refused)

    def expire(self, now: float) -> dict[str, frozenset[Address]]:
        """Drop addresses not seen for *linger* seconds; return them, by name."""
        gone: dict[str, frozenset[Address]] = {}
        for name, held in self._seen.items():
            old = frozenset(a for a, seen in held.items() if now - seen > self._linger)
            for address in old:
                del held[address]
            if old:
                gone[name] = old
        return gone

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget every name that is not in *names*: the policy was replaced."""
        wanted = frozenset(names)
        self._seen = {name: held for name, held in self._seen.items() if name in wanted}

    def resolution(self) -> Resolution:
        """Return what names and nameservers mean now; a snapshot."""
        names = {name: frozenset(held) for name, held in self._seen.items()}
        return Resolution(names, self.resolvers)

    def _screen(self, name: str, answers: Iterable[Address]) -> tuple[set[Address], list[str]]:
        """Inner addresses only for inner names, or where /etc/hosts says so."""
        trusted = self.hosts.get(_canonical(name), frozenset())
        accepted: set[Address] = set()
        refused: list[str] = []
        for address in sorted({normalise(a) for a in answers}, key=_order):
            kind = inner_kind(address) if is_public(name) else None
            if kind is None or address in trusted:
                accepted.add(address)
            else:
                refused.append(f"{name}: {address} refused: {kind} address for a public name")
        return accepted, refused

    def _cut(self, name: str, held: dict[Address, float]) -> list[str]:
        """Keep the latest seen: what is over the limit is more likely stale."""
        ranked = sorted(held, key=lambda a: (-held[a], _order(a)))
        over = ranked[ADDRESSES_MAX:]
        for address in over:
            del held[address]
        return [f"{name}: {len(over)} addresses refused: more than {ADDRESSES_MAX} for one name"]


@dataclass(frozen=True)
class Answer:
    """What the host's resolver said: addresses, or *error*, never both."""

    addresses: frozenset[Address] = frozenset()
    error: str | None = None


async def resolve(name: str, timeout: float) -> Answer:
    """Return what the host's own resolver says of *name*; an error within *timeout* seconds.

    Never blocks the loop: the look-up runs in one of a few threads.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()
    _POOL.submit(name, loop, future)
    try:
        async with asyncio.timeout(timeout):
            return await future
    except TimeoutError:
        return Answer(error=f"no answer within {timeout:g} s")


def look_up(name: str) -> Answer:
    """Return the answer for *name*; blocks for as long as the resolver likes."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return Answer(error=error.strerror or str(error))
    except ValueError:  # UnicodeError for a label over 63 bytes, a NUL
        return Answer(error="not a host name")
    addresses = (parse_address(str(where[0])) for *_, where in found)
    return Answer(frozenset(address for address in addresses if address is not None))


def parse_address(text: str) -> Address | None:
    """Return the address *text* in its one form, without a zone; None if it is none."""
    try:
        return normalise(ip_address(text))
    except ValueError:
        return None


_Job = tuple[str, asyncio.AbstractEventLoop, "asyncio.Future[Answer]"]


class _Pool:
    """Daemon threads: those of an executor would keep a stopping agent until the
    resolver's own timeouts are over."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, *job: *_Job) -> None:
        with self._lock:
            if len(self._threads) < WORKERS:
                thread = threading.Thread(target=self._work, name="resolve", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            name, loop, future = self._jobs.get()
            if future.cancelled():  # nobody waits any more
                continue
            answer = look_up(name)
            try:
                loop.call_soon_threadsafe(_deliver, future, answer)
            except RuntimeError:  # the loop is closed
                continue


_POOL = _Pool()


def _deliver(future: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _lines(path: str | Path, comments: str) -> list[list[str]]:
    """Return the words of each line that has any."""
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError:
        return []
    for mark in comments[1:]:
        text = text.replace(mark, comments[0])
    lines = (line.partition(comments[0])[0].split() for line in text.splitlines())
    return [words for words in lines if words]


def _canonical(name: str) -> str:
    return name.rstrip(".").lower()


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)
