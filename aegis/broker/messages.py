# SPDX-License-Identifier: Apache-2.0
"""What the agent and its brokers say to each other: each message a flat, frozen record.

Strict: an unknown kind, a field too many, too few or of another type is no message.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from aegis.actions.kill import KillOrder, KillResult, KillStatus
from aegis.errors import BrokerError

VERSION = 1
MESSAGE_MAX = 128 * 1024  # bytes; a socket's buffer takes more


@dataclass(frozen=True, slots=True)
class Kill:
    """See :class:`KillOrder`."""

    pid: int
    start_boot_ns: int
    exec_boot_ns: int
    identity: int
    device: int
    inode: int
    path: str
    tree: bool
    marked: bool
    never_kill: tuple[str, ...]
    budget: int
    left: bool

    @classmethod
    def of(cls, order: KillOrder) -> "Kill":
        return cls(**asdict(order))

    def order(self) -> KillOrder:
        return KillOrder(**asdict(self))


@dataclass(frozen=True, slots=True)
class Killed:
    """See :class:`KillResult`."""

    pid: int
    status: str
    detail: str
    descendants: int

    def result(self) -> KillResult:
        """:raises ValueError: when there is no such status"""
        return KillResult(
            self.pid, KillStatus(self.status), self.detail, descendants=self.descendants
        )


@dataclass(frozen=True, slots=True)
class Sever:
    """A socket to close, and who may share its network namespace; addresses in hex."""

    netns: int
    family: int
    protocol: int
    device: int
    carrier: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Severed:
    """Whether it was *found*; *error*: why it was not closed."""

    found: bool
    error: str


@dataclass(frozen=True, slots=True)
class LookUp:
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """See :class:`aegis.names.Answer`; *error* is empty if there is none."""

    id: int
    addresses: tuple[str, ...]
    error: str


@dataclass(frozen=True, slots=True)
class Run:
    """See :class:`aegis.actions.runs.Order`. With it come its standard input and, if it is
    a *script*, what is executed.
    """

    id: int
    name: str
    env: dict[str, str]
    limit: float
    uid: int
    event_id: str
    script: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


@dataclass(frozen=True, slots=True)
class Running:
    """*caged*: whether it can be suspended."""

    id: int
    pid: int
    caged: bool


@dataclass(frozen=True, slots=True)
class Freeze:
    """Suspend a run, or let it go on."""

    id: int
    frozen: bool


@dataclass(frozen=True, slots=True)
class Ran:
    """See :class:`ScriptResult`. *ended*: whether *status* is one; *error*: it did not run."""

    id: int
    pid: int
    ended: bool
    status: int
    timed_out: bool
    duration_ns: int
    output: str
    output_bytes: int
    uncaged: str
    error: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Where *path* leads to, links followed."""

    path: str


@dataclass(frozen=True, slots=True)
class Followed:
    """As ``os.path.realpath`` has it: what is not there yet leads nowhere else."""

    path: str


@dataclass(frozen=True, slots=True)
class Attach:
    """With it come a program that sees packets coming in, and a cgroup's directory."""


@dataclass(frozen=True, slots=True)
class Attached:
    """With it comes the link; if there is none, *error* says why."""

    error: str


Message = (
    Kill | Killed | Sever | Severed | LookUp | Found | Run | Cancel | Running | Freeze | Ran
    | Follow | Followed | Attach | Attached
)  # fmt: skip
KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        *(Kill, Killed, Sever, Severed, LookUp, Found, Run, Cancel, Running, Freeze, Ran),
        *(Follow, Followed, Attach, Attached),
    )
}
_TYPES: dict[str, dict[str, Any]] = {
    name: {field.name: get_type_hints(kind)[field.name] for field in fields(kind)}
    for name, kind in KINDS.items()
}


def encode(message: Message) -> bytes:
    """:raises BrokerError: when it is too long"""
    data = json.dumps({"v": VERSION, "kind": type(message).__name__, **asdict(message)}).encode()
    if len(data) > MESSAGE_MAX:
        raise BrokerError(f"{type(message).__name__}: a message of {len(data)} bytes is too long")
    return data


def decode(data: bytes) -> Message:
    """:raises BrokerError: when it is none, saying why"""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BrokerError("not a message: no JSON") from None
    if not isinstance(found, dict) or found.pop("v", None) != VERSION:
        raise BrokerError(f"not a message of version {VERSION}")
    name = found.pop("kind", None)
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BrokerError("not a message: of no known kind")
    types = _TYPES[kind.__name__]
    if set(found) != set(types):
        raise BrokerError(f"{kind.__name__}: not its fields")
    return kind(**{key: _typed(kind, key, found[key], types[key]) for key in types})


def _typed(kind: type[Message], key: str, value: object, wanted: Any) -> Any:
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is wanted:  # a bool is no int here
        return value
    if wanted == tuple[str, ...] and _all(value, str):
        return tuple(value)  # type: ignore[arg-type]
    if wanted == tuple[int, ...] and _all(value, int):
        return tuple(value)  # type: ignore[arg-type]
    if wanted == dict[str, str] and isinstance(value, dict) and _all([*value.values()], str):
        return value
    raise BrokerError(f"{kind.__name__}: {key} is of a wrong type")


def _all(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)
