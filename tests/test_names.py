# SPDX-License-Identifier: Apache-2.0
"""Names: read, screened, kept for a while, looked up without blocking anything."""

import asyncio
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from aegis import names
from aegis.names import (
    ADDRESSES_MAX,
    Answer,
    NameBook,
    inner_kind,
    is_public,
    look_up,
    names_in,
    read_hosts,
    read_resolvers,
    resolve,
)
from aegis.policy.model import Address, Where
from tests.pace import HUNG_S
from tests.policy.build import policy, rule

RESOLV_CONF = """\
# nameserver 192.0.2.1
; nameserver 192.0.2.2
domain example.org
nameserver 127.0.0.53
nameserver\t2001:db8::1   # the second
nameserver fe80::1%eth0
nameserver 127.0.0.53
nameserver nonsense
nameserver
options edns0 trust-ad
"""
HOSTS = """\
127.0.0.1\tlocalhost
::1 localhost ip6-localhost  # comment
10.0.0.5 Intra.Example.COM intra
10.0.0.6 intra.example.com.
fe80::1%lo0 router
not-an-address bob.com

"""


def addresses(*texts: str) -> frozenset[Address]:
    return frozenset(map(ip_address, texts))


def test_resolvers_are_read_in_order(tmp_path: Path) -> None:
    """Comments, repeats, nonsense and zones do not get in."""
    (tmp_path / "resolv.conf").write_text(RESOLV_CONF)
    expected = tuple(map(ip_address, ("127.0.0.53", "2001:db8::1", "fe80::1")))
    assert read_resolvers(tmp_path / "resolv.conf") == expected


def test_no_resolv_conf_means_no_resolvers(tmp_path: Path) -> None:
    """Nothing is whitelisted by default that the host does not name."""
    assert read_resolvers(tmp_path / "absent") == ()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0nameserver\n\xffnameserver 1.1.1.1")
    assert read_resolvers(tmp_path / "binary") == ()


def test_hosts_are_read_by_name(tmp_path: Path) -> None:
    """Names are compared without case and final dot."""
    (tmp_path / "hosts").write_text(HOSTS)
    assert read_hosts(tmp_path / "hosts") == {
        "localhost": addresses("127.0.0.1", "::1"),
        "ip6-localhost": addresses("::1"),
        "intra.example.com": addresses("10.0.0.5", "10.0.0.6"),
        "intra": addresses("10.0.0.5"),
        "router": addresses("fe80::1"),
    }
    assert read_hosts(tmp_path / "absent") == {}


def test_names_are_found_where_they_are_written() -> None:
    """In every list that takes them; ports and addresses are none."""
    made = policy(
        rule(3, exe="x", remotes=["bob.com:8086", "10.0.0.1:1", "8086"], locals=["here.host:1"]),
        rule(5, exe="y", remotes=["bob.com:443"], peers=["peer.host"]),
        ips=["white.host"],
    )
    assert names_in(made) == {
        "white.host": (Where("list.toml", 1),),
        "bob.com": (Where("list.toml", 3), Where("list.toml", 5)),
        "here.host": (Where("list.toml", 3),),
        "peer.host": (Where("list.toml", 5),),
    }


@pytest.mark.parametrize("name", ["bob.com", "BOB.com.", "local.com", "mylocal", "x.lan.org"])
def test_public_names(name: str) -> None:
    """More than one label, and no suffix of a private network."""
    assert is_public(name) is (name != "mylocal")


@pytest.mark.parametrize(
    "name", ["bob", "bob.", "bob.local", "A.LAN", "x.internal.", "nas.home.arpa", "h.localdomain"]
)
def test_names_of_this_network(name: str) -> None:
    """One label, or a suffix kept for private use."""
    assert not is_public(name)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("10.255.255.255", "a private"),
        ("172.16.0.0", "a private"),
        ("172.31.255.255", "a private"),
        ("192.168.1.1", "a private"),
        ("100.100.100.200", "a private"),
        ("127.0.0.1", "a loopback"),
        ("0.0.0.0", "an unspecified"),
        ("169.254.169.254", "a link-local"),
        ("224.0.0.1", "a multicast"),
        ("255.255.255.255", "a reserved"),
        ("::", "an unspecified"),
        ("::1", "a loopback"),
        ("fe80::1", "a link-local"),
        ("fd00::1", "a private"),
        ("ff02::1", "a multicast"),
        ("::ffff:10.0.0.1", "a private"),
        ("64:ff9b::10.0.0.1", "a private"),
        ("64:ff9b::9.9.9.9", None),
        ("172.15.255.255", None),
        ("172.32.0.0", None),
        ("9.9.9.9", None),
        ("192.0.2.7", None),
        ("2001:db8::1", None),
    ],
)
def test_inner_addresses(text: str, kind: str | None) -> None:
    """What no public name may mean, also in disguise."""
    assert inner_kind(ip_address(text)) == kind


def test_public_names_get_public_addresses_only() -> None:
    """The rest of the answer stands; what was refused is said."""
    book = NameBook()
    said = book.update("bob.com", addresses("192.0.2.7", "169.254.169.254", "::1"), 0)
    assert book.resolution().names == {"bob.com": addresses("192.0.2.7")}
    assert said == (
        "bob.com: 169.254.169.254 refused: a link-local address for a public name",
        "bob.com: ::1 refused: a loopback address for a public name",
    )


def test_names_of_this_network_get_any_address() -> None:
    """And addresses come out in one form."""
    book = NameBook()
    assert book.update("nas.lan", addresses("::ffff:192.168.1.5", "127.0.0.1"), 0) == ()
    assert book.resolution().names == {"nas.lan": addresses("192.168.1.5", "127.0.0.1")}


def test_etc_hosts_is_trusted_for_what_it_says() -> None:
    """That address for that name; another private one still is a stranger's."""
    book = NameBook(hosts={"intra.example.com": addresses("10.0.0.5")})
    said = book.update("Intra.example.com", addresses("10.0.0.5", "10.0.0.6"), 0)
    assert book.resolution().names == {"Intra.example.com": addresses("10.0.0.5")}
    assert len(said) == 1 and "10.0.0.6 refused" in said[0]
    assert book.update("other.example.com", addresses("10.0.0.5"), 0)


def test_addresses_linger_after_they_were_last_seen() -> None:
    """Rotation does not cut off a client; one that stays away is dropped, and told."""
    book = NameBook(linger=100)
    book.update("bob.com", addresses("192.0.2.1", "192.0.2.2"), 1000)
    book.update("bob.com", addresses("192.0.2.2", "192.0.2.3"), 1050)
    assert book.expire(1100) == {}
    assert book.resolution().names["bob.com"] == addresses("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert book.expire(1101) == {"bob.com": addresses("192.0.2.1")}
    assert book.resolution().names["bob.com"] == addresses("192.0.2.2", "192.0.2.3")
    assert book.expire(2000) == {"bob.com": addresses("192.0.2.2", "192.0.2.3")}
    assert book.resolution().names == {"bob.com": frozenset()}
    assert book.expire(3000) == {}


def test_an_empty_answer_takes_nothing_away() -> None:
    """Only time does."""
    book = NameBook()
    book.update("bob.com", addresses("192.0.2.1"), 0)
    assert book.update("bob.com", (), 10) == ()
    assert book.resolution().names == {"bob.com": addresses("192.0.2.1")}


def test_one_name_has_so_many_addresses_at_most() -> None:
    """The latest seen stay; the others are told."""
    book = NameBook()
    many = [ip_address((198 << 24) + i) for i in range(ADDRESSES_MAX)]
    assert book.update("bob.com", many, 0) == ()
    new = addresses("203.0.113.1", "203.0.113.2")
    said = book.update("bob.com", new, 1)
    held = book.resolution().names["bob.com"]
    assert said == ("bob.com: 2 addresses refused: more than 64 for one name",)
    assert len(held) == ADDRESSES_MAX and new <= held
    assert not held & {many[-1], many[-2]}


def test_a_resolution_is_a_snapshot() -> None:
    """A policy in force does not change under its reader."""
    book = NameBook(resolvers=(ip_address("9.9.9.9"),))
    book.update("bob.com", addresses("192.0.2.1"), 0)
    before = book.resolution()
    book.update("bob.com", addresses("192.0.2.2"), 1)
    assert before.names == {"bob.com": addresses("192.0.2.1")}
    assert before.resolvers == (ip_address("9.9.9.9"),)


def test_names_of_a_replaced_policy_are_forgotten() -> None:
    """So that the book does not grow with each reload."""
    book = NameBook()
    book.update("old.com", addresses("192.0.2.1"), 0)
    book.update("bob.com", addresses("192.0.2.2"), 0)
    book.keep_only(["bob.com", "new.com"])
    assert set(book.resolution().names) == {"bob.com"}


def test_the_hosts_own_resolver_is_asked() -> None:
    """/etc/hosts, numbers, and what cannot be a name."""
    assert look_up("127.0.0.1") == Answer(addresses("127.0.0.1"))
    found = asyncio.run(resolve("localhost", HUNG_S))
    assert found.error is None
    assert found.addresses & addresses("127.0.0.1", "::1")
    for name in ("a" * 64 + ".com", "a..b", "\0"):
        answer = asyncio.run(resolve(name, HUNG_S))
        assert answer.error and not answer.addresses


def test_a_hanging_resolver_blocks_neither_loop_nor_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is an error in time, and the next name is served by another worker."""
    release = threading.Event()

    def hang(name: str) -> Answer:
        if name == "slow.com":
            release.wait(HUNG_S)
        return Answer(addresses("192.0.2.1"))

    monkeypatch.setattr(names, "look_up", hang)

    async def both() -> tuple[Answer, Answer]:
        slow = asyncio.create_task(resolve("slow.com", 0.3))
        quick = asyncio.create_task(resolve("quick.com", HUNG_S))
        return await slow, await quick

    start = time.monotonic()
    slow, quick = asyncio.run(both())
    took = time.monotonic() - start
    release.set()
    assert slow == Answer(error="no answer within 0.3 s")
    assert quick == Answer(addresses("192.0.2.1"))
    assert took < 5  # a loop that was blocked would have hung as long as the resolver
    assert all(t.daemon for t in threading.enumerate() if t.name == "resolve")
