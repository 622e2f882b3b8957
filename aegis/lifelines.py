# SPDX-License-Identifier: Apache-2.0
"""What a host must be able to do to stay one that can be reached and repaired.

Found, not configured: the processes the kernel knows, their sockets, and the files
that name servers. Whoever would be cut off is judged in ``lockout``.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from aegis.bpf.existing import Held, held_sockets, stored_proc
from aegis.bpf.layout import layout, text_of
from aegis.bpf.object import BpfObject
from aegis.bpf.ring import address_of, argv_of
from aegis.events.event import IdentityFlag
from aegis.existing import SSHD
from aegis.names import read_resolvers
from aegis.policy.model import Address, Direction, Flow, Identity, Protocol
from aegis.subject import by_path, read_unit

RESOLVERS = {"systemd-resolved", "systemd-resolve", "dnsmasq", "nscd", "stubby"}
RECURSORS = {"unbound", "named", "kresd", "pdns_recursor"}
DHCP_CLIENTS = {"dhclient", "NetworkManager", "systemd-networkd", "dhcpcd", "udhcpc", "connmand"}
CLOCKS = {"chronyd", "ntpd", "systemd-timesyncd"}
# Where somebody is when nobody says where: TEST-NET-1, and one of the root servers.
SOMEWHERE = IPv4Address("192.0.2.1")
ROOT_SERVER = IPv4Address("198.41.0.4")
_EVERYBODY = IPv4Address("255.255.255.255")
_RESOLV = ("run/systemd/resolve/resolv.conf", "run/NetworkManager/resolv.conf", "etc/resolv.conf")
_CLOCK_FILES = (
    *("etc/systemd/timesyncd.conf", "etc/systemd/timesyncd.conf.d/*.conf"),
    *("etc/chrony/chrony.conf", "etc/chrony/conf.d/*.conf", "etc/chrony/sources.d/*.sources"),
    *("etc/chrony.conf", "etc/ntp.conf", "etc/ntpsec/ntp.conf", "etc/openntpd/ntpd.conf"),
)
_CLOCK_LINE = re.compile(r"^\s*(?:(?:Fallback)?NTP\s*=|servers?\s|pool\s)\s*(.*)$")
_SOURCES = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*.list",
    "etc/apt/sources.list.d/*.sources",
)
_URI = re.compile(r"\b(https?)://(?:[^/@\s]*@)?(\[[^\]\s]+\]|[^/:\s\]]+)(?::(\d+))?")
_PROXY = re.compile(r'^\s*Acquire::(https?)::Proxy\s+"([^"]+)"', re.MULTILINE | re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Lifeline:
    """*identity* must be able to do *flow*; *host*: the name of its address, if it has one."""

    what: str
    identity: Identity
    flow: Flow
    host: str | None = None


@dataclass(frozen=True)
class Process:
    """A governed process."""

    pid: int
    identity: Identity


@dataclass(frozen=True)
class Host:
    """Files below *root*; *whole*: every process is governed; *packets*: AF_PACKET is, too."""

    root: Path = Path("/")
    whole: bool = True
    packets: bool = False

    def texts(self, *patterns: str) -> Iterator[str]:
        for pattern in patterns:
            for path in sorted(self.root.glob(pattern)):
                with contextlib.suppress(OSError):
                    yield path.read_text("utf-8", "replace")

    def nameservers(self) -> tuple[Address, ...]:
        found = [address for name in _RESOLV for address in read_resolvers(self.root / name)]
        return tuple(dict.fromkeys(found))


def find_lifelines(loaded: BpfObject, host: Host, cgroup: Path) -> Iterator[Lifeline]:
    """Yield everything that is found, of the processes below *cgroup*."""
    yield from _sessions(loaded)
    for process in _processes(loaded, cgroup):
        yield from of_process(process, host)
    if host.whole:
        yield from of_updates(host)


# ---- who is there ----


def identity_of(proc: Mapping[str, Any], uid: int, unit: str | None) -> Identity:
    """What the kernel keeps of a process (``struct aegis_proc``), for the reference."""
    flags = IdentityFlag(proc["flags"])
    path = text_of(proc["path"])
    cmdline = proc["cmdline"]
    script = cmdline[: proc["script_off"]].count(0) if flags & IdentityFlag.SCRIPT else None
    lost = flags & IdentityFlag.CMDLINE_LOST
    return Identity(
        path=None if flags & IdentityFlag.PATH_CUT else os.fsdecode(path),
        exe=None if flags & IdentityFlag.NAME_CUT else os.fsdecode(text_of(proc["exe"])),
        argv=None if lost else argv_of(cmdline, proc["cmdline_len"]),
        script_index=script,
        user=uid,
        unit=unit,
        host_fs=bool(flags & IdentityFlag.HOST_FS),
        trusted=bool(flags & IdentityFlag.TRUSTED),
        inner_path=os.fsdecode(path[proc["root_off"] :]) if proc["root_off"] else None,
        argv0_false=bool(flags & IdentityFlag.ARGV0_FALSE),
    )


def _sessions(loaded: BpfObject) -> Iterator[Lifeline]:
    """Who came in by ssh, and the way to come in again."""
    unpack = layout("aegis_proc").unpack
    for held in held_sockets(loaded):
        proc = unpack(stored_proc(loaded, held))
        trusted = IdentityFlag(proc["flags"]) & IdentityFlag.TRUSTED
        if held.direction is Direction.IN and trusted and text_of(proc["exe"]) in SSHD:
            unit = os.fsdecode(text_of(held.unit)) or None
            yield of_session(held, identity_of(proc, held.uid, unit))


def of_session(held: Held, identity: Identity) -> Lifeline:
    port = held.local[1]
    if held.listens:
        flow = Flow(IPv4Address(0), port, direction=Direction.IN, listening=True)
        return Lifeline(f"sshd: who comes in on port {port}", identity, flow)
    peer = address_of(held.remote[0])
    flow = Flow(peer, port, direction=Direction.IN)
    return Lifeline(f"sshd: the session of {peer}", identity, flow)


def _processes(loaded: BpfObject, cgroup: Path) -> Iterator[Process]:
    unpack, known = layout("aegis_proc").unpack, RESOLVERS | RECURSORS | DHCP_CLIENTS | CLOCKS
    place = cgroup.stat().st_ino
    for key, value in loaded.maps["procs"].items():
        proc, pid = unpack(value), int.from_bytes(key, sys.byteorder)
        if os.fsdecode(text_of(proc["exe"])) not in known:
            continue
        with contextlib.suppress(OSError, StopIteration):
            text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape")
            if _is_below(text, cgroup, place):
                status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
                uid = next(line for line in status.splitlines() if line.startswith("Uid:"))
                yield Process(pid, identity_of(proc, int(uid.split()[1]), read_unit(text)))


def _is_below(text: str, cgroup: Path, place: int) -> bool:
    """Whether /proc/PID/cgroup, *text*, names *cgroup* (inode *place*) or one below it."""
    mount = next((p for p in (cgroup, *cgroup.parents) if p.is_mount()), cgroup)
    own = next(line for line in text.splitlines() if line.startswith("0::"))
    path = mount / own.removeprefix("0::").lstrip("/")
    return any(p.exists() and p.stat().st_ino == place for p in (path, *path.parents))


# ---- what they need ----


def of_process(process: Process, host: Host) -> Iterator[Lifeline]:
    """What a resolver, DHCP client or clock needs."""
    identity, name = process.identity, process.identity.exe or ""
    if name in RESOLVERS:
        outer = [server for server in host.nameservers() if not server.is_loopback]
        for server in outer:
            yield from _questions(f"name resolution by {name}", identity, server)
    if name in RECURSORS:
        yield from _questions(f"name resolution by {name}", identity, ROOT_SERVER)
    if name in DHCP_CLIENTS:
        yield from _of_dhcp(name, identity, host)
    if name in CLOCKS:
        servers = tuple(clock_servers(host)) or (str(SOMEWHERE),)
        for clock in servers:
            yield _to(f"the time from {clock} for {name}", identity, clock, 123, Protocol.UDP)


def _questions(what: str, identity: Identity, server: Address) -> Iterator[Lifeline]:
    for protocol in (Protocol.UDP, Protocol.TCP):
        told = f"{what}: {server} port 53/{protocol}"
        yield Lifeline(told, identity, Flow(server, 53, protocol))


def _of_dhcp(name: str, identity: Identity, host: Host) -> Iterator[Lifeline]:
    what = f"DHCP by {name}"
    yield Lifeline(f"{what}: asking", identity, Flow(_EVERYBODY, 67, Protocol.UDP))
    hears = Flow(IPv4Address(0), 68, Protocol.UDP, Direction.IN, listening=True)
    yield Lifeline(f"{what}: hearing the answer", identity, hears)
    if host.packets:
        packet = Flow(IPv4Address(0), 0, socket="packet")
        yield Lifeline(f"{what}: its packet socket", identity, packet)


def clock_servers(host: Host) -> Iterator[str]:
    """Names or addresses in the files of whatever keeps the time."""
    for text in host.texts(*_CLOCK_FILES):
        for line in text.splitlines():
            found = _CLOCK_LINE.match(line)
            if found:
                # chrony and ntpd: one server and its options; timesyncd: several.
                words = found[1].split()
                yield from words if "=" in line.split("#")[0].partition(" ")[0] else words[:1]


def of_updates(host: Host) -> Iterator[Lifeline]:
    """apt's methods to the servers of its sources, or to its proxy; and its names."""
    user = _uid_of(host, "_apt")
    proxies = {
        found[1].lower(): found[2]
        for text in host.texts("etc/apt/apt.conf", "etc/apt/apt.conf.d/*")
        for found in _PROXY.finditer(text)
    }
    told: set[tuple[str, str, int]] = set()
    for text in host.texts(*_SOURCES):
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        for scheme, server, port in _URI.findall("\n".join(lines)):
            proxy = _URI.search(proxies.get(scheme, ""))
            via, to, at = (proxy[1], proxy[2], proxy[3]) if proxy else (scheme, server, port)
            told.add((scheme, to, int(at or _PORTS[via])))
    for scheme, server, port in sorted(told):
        method = host.root / f"usr/lib/apt/methods/{scheme}"
        if not method.exists():
            continue
        identity = replace(by_path(str(method), None).identity, user=user)
        yield _to(f"package updates from {server} port {port}", identity, server, port)
        for resolver in host.nameservers():
            yield from _questions("names for package updates", identity, resolver)


def _uid_of(host: Host, name: str) -> int:
    for text in host.texts("etc/passwd"):
        for line in text.splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 2:
                return int(fields[2])
    return 0


def _to(
    what: str, identity: Identity, server: str, port: int, protocol: Protocol = Protocol.TCP
) -> Lifeline:
    """To a server by address, or by a name whose address is to be found yet."""
    with contextlib.suppress(ValueError):
        address = ip_address(server.strip("[]"))
        return Lifeline(what, identity, Flow(address, port, protocol))
    return Lifeline(what, identity, Flow(SOMEWHERE, port, protocol), host=server)
