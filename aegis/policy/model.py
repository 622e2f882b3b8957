# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a policy: frozen values, no I/O, no kernel.

Made by ``aegis.config`` from TOML; read by ``decide``, ``compile`` and
``explain``. Text is ``str`` in which undecodable bytes are surrogate escapes
(``os.fsdecode``), so a hostile path survives the trip. What a large policy has
tens of thousands of is a NamedTuple: made in a third of the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

Address = IPv4Address | IPv6Address


KERNEL = "[kernel]"
"""All kernel threads, where the path of a program may stand. No file has a path like it."""


class Mode(StrEnum):
    ENFORCE = "enforce"
    OBSERVE = "observe"


class Direction(StrEnum):
    OUT = "out"
    IN = "in"


class Scope(StrEnum):
    """What a list of ports or addresses is about; names as in ``enum aegis_scope``."""

    REMOTE = "remote"  # outbound, not loopback
    LOCAL = "local"  # outbound, loopback or the unspecified address
    LISTEN = "listen"  # inbound, our own port
    PEER = "peer"  # inbound, who connects
    SOCKET = "socket"  # making a socket other than TCP's or UDP's


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class Verdict(StrEnum):
    ALLOWED = "allowed"
    BLOCKED = "blocked"
    WOULD_BLOCK = "would-block"


class Reason(StrEnum):
    """Why a verdict was reached; names as in ``enum aegis_reason``."""

    RULE_DENIES = "rule-denies"
    RULE_ALLOWS = "rule-allows"
    WHITELIST = "whitelist"
    PROGRAM = "program"  # [whitelist] programs, or ignore = true
    UNCONFIGURED = "unconfigured"
    UNTRUSTED = "untrusted"  # the rule would allow, this file may not claim it
    HARMLESS = "harmless"  # UDP connect to port 0, ICMP echo, an answer, not watched


class Where(NamedTuple):
    """A place in a policy; line and column count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Actions:
    """What happens on an event. Empty, or only ``allow``: say nothing, let pass."""

    log: bool = False
    notify: bool = False
    block: bool = False
    kill: bool = False
    allow: bool = False
    scripts: tuple[str, ...] = ()  # names given as ``script:NAME``
    kill_tree: bool = False  # descendants too; only with kill
    agent_kills: bool = False  # not the kernel: there is something to look at first

    @property
    def refuses(self) -> bool:
        """``kill`` implies ``block``."""
        return self.block or self.kill

    @property
    def reports(self) -> bool:
        """Whether an event is raised at all."""
        return self.log or self.notify or self.refuses or bool(self.scripts)

    def names(self) -> tuple[str, ...]:
        """The words of the policy, in its order of severity."""
        words = [w for w in ("allow", "log", "notify") if getattr(self, w)]
        words += [f"script:{name}" for name in self.scripts]
        return tuple(words + [w for w in ("block", "kill") if getattr(self, w)])


class Entry(NamedTuple):
    """One string of a list: where to, which ports, which protocols.

    Neither *network* nor *name* set means any address. Ports are inclusive;
    1-65535 when none were written. IPv4-mapped IPv6 is stored as IPv4.
    """

    text: str
    where: Where
    network: IPv4Network | IPv6Network | None = None
    name: str | None = None
    first_port: int = 1
    last_port: int = 65535
    protocols: frozenset[Protocol] = frozenset(Protocol)


@dataclass(frozen=True)
class Selectors:
    """What a rule is about; ANDed. Two rules with equal selectors are the same rule."""

    exe: str | None = None  # base name
    path: str | None = None  # absolute, symlinks resolved
    cmdline: str | None = None
    user: int | None = None  # uid
    unit: str | None = None

    def count(self) -> int:
        return sum(value is not None for value in self.rank_values())

    def rank_values(self) -> tuple[object, ...]:
        return (self.path, self.cmdline, self.exe, self.user, self.unit)


@dataclass(frozen=True)
class Rule:
    """One ``[[app]]``. ``None`` means the key was absent, ``()`` an empty list."""

    selectors: Selectors
    where: Where
    actions: Actions  # default_actions already applied
    any_namespace: bool = False
    untrusted_file: bool = False
    ignore: bool = False
    ports: tuple[Entry, ...] | None = None
    remotes: tuple[Entry, ...] | None = None
    locals: tuple[Entry, ...] | None = None
    local: bool | None = None
    remote: bool | None = None
    listen: tuple[Entry, ...] | None = None
    peers: tuple[Entry, ...] | None = None
    strict: bool = False
    sockets: tuple[str, ...] = ()
    detent: int = 86400  # seconds; [global] detent already applied


@dataclass(frozen=True)
class Whitelist:
    ips: tuple[Entry, ...] = ()
    ports: tuple[Entry, ...] = ()
    programs: tuple[tuple[str, Where], ...] = ()  # base name, or absolute path
    resolvers: bool = True
    where: Where | None = None


@dataclass(frozen=True)
class Settings:
    """``[global]``, whole. Durations in seconds."""

    mode: Mode = Mode.ENFORCE
    include_dirs: tuple[str, ...] = ()
    script_dirs: tuple[str, ...] = ()
    detent: int = 86400
    default_actions: Actions = Actions(log=True, notify=True)
    unconfigured_actions: Actions = Actions(log=True, notify=True)
    inbound: bool = True
    sever_existing: bool = False
    deny_socket_fds: bool = False
    tamper_guard: bool = False
    script_timeout: int = 30
    script_jobs: int = 4
    script_queue: int = 1000
    never_kill: tuple[str, ...] = ()  # base names, or absolute paths
    kill_tree: bool = False
    kill_budget: int = 20  # kills in a minute
    script_user: int | None = None  # uid; None: the agent's own user
    history_days: int = 90
    history_rows: int = 100_000
    metrics_file: str | None = None


@dataclass(frozen=True)
class Notify:
    """``[notify]``: who is told of events whose actions include ``notify``."""

    urls_file: str | None = None  # None: nobody
    limit: int = 20  # notifications in any *window* seconds
    rule_limit: int = 5  # of them about one rule
    window: int = 300
    user: int = 65534  # uid the sending is done as; Debian's nobody


@dataclass(frozen=True)
class Policy:
    """Everything in force. *rules* ascend in precedence: of several that match,

    the last one governs. No two have equal selectors: replaced ones are gone.
    """

    settings: Settings = Settings()
    whitelist: Whitelist = Whitelist()
    rules: tuple[Rule, ...] = ()
    notify: Notify = Notify()


@dataclass(frozen=True)
class Resolution:
    """What names meant when the policy was put in force.

    *names*: host name as written in the entry → addresses (absent or empty: it
    allows nothing). *resolvers*: the host's nameservers.
    """

    names: Mapping[str, frozenset[Address]] = field(default_factory=dict)
    resolvers: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Identity:
    """A process as the kernel saw it: exec-time facts, plus user and unit now."""

    path: str | None = None  # None: longer than the kernel keeps; matches no path
    exe: str | None = None  # base name; None: longer than the kernel keeps
    argv: tuple[str, ...] | None = None  # None: could not be read
    script_index: int | None = None  # which argument is the script, for #! programs
    user: int = 0
    unit: str | None = None
    host_fs: bool = True  # reached in the host's own root file system
    trusted: bool = True  # and owned by root, not writable by group or others
    inner_path: str | None = None  # as seen from its own root directory, after chroot()
    argv0_false: bool = False  # the first argument is not what was executed


@dataclass(frozen=True)
class Flow:
    """One attempt: outbound *address*/*port* is the destination; inbound it is

    the peer's address and our own port. With *socket*, a word of ``sockets``, it
    is neither.
    """

    address: Address
    port: int
    protocol: Protocol = Protocol.TCP
    direction: Direction = Direction.OUT
    udp_connect: bool = False  # connect() of a UDP socket: sends nothing
    listening: bool = False  # inbound: bind() or listen(), nobody came yet
    socket: str | None = None


@dataclass(frozen=True)
class Decision:
    """What happens to a flow, and why.

    *rule*: the ``[[app]]`` the process got, if any, even when the whitelist
    decided. *entry*: the list entry that allowed it, if one did. *actions*: in
    force for this flow; empty when it is on the map.
    """

    verdict: Verdict
    reason: Reason
    scope: Scope
    actions: Actions
    rule: Rule | None = None
    entry: Entry | None = None
    where: Where | None = None  # the deciding place; None: unconfigured or built in
