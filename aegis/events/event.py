# SPDX-License-Identifier: Apache-2.0
"""One reported connection, as the kernel saw it and the policy named it."""

from dataclasses import dataclass
from enum import IntFlag, StrEnum

from aegis.policy.model import Actions, Address, Direction, Mode, Reason, Scope, Verdict


class Hook(StrEnum):
    """Where the kernel decided; names as in ``enum aegis_hook``."""

    CONNECT = "connect"
    SENDMSG = "sendmsg"
    SOCKET = "socket"
    BIND = "bind"
    LISTEN = "listen"
    INGRESS = "ingress"  # a packet from a peer, before the socket gets it
    ACCEPT = "accept"  # a peer's handshake is done
    RECVMSG = "recvmsg"
    EXISTING = "existing"  # none: the socket is older than all of them
    RECEIVE = "receive"  # another process hands over a socket


class IdentityFlag(IntFlag):
    """``enum aegis_identity``; a test compares the two."""

    HOST_FS = 1
    TRUSTED = 2
    SEEDED = 4
    LOST = 8
    KTHREAD = 16
    SCRIPT = 32
    PATH_CUT = 64
    NAME_CUT = 128
    CMDLINE_CUT = 256
    CMDLINE_LOST = 512
    UNLINKED = 1024
    ARGV0_FALSE = 2048
    CANARY = 4096  # a child of the agent that is refused as a proof


class KillBy(StrEnum):
    """``enum aegis_kill``: who kills the process of an event."""

    AGENT = "agent"  # by pidfd, when it reads the event
    HOOK = "hook"  # the kernel has sent the signal before its call returned
    TRACING = "tracing"  # the same, one function further on; the agent makes sure


@dataclass(frozen=True, slots=True)
class Event:
    """Something off the map. Times are nanoseconds of CLOCK_BOOTTIME.

    Text holds undecodable bytes as surrogate escapes: never print it raw.
    """

    boot_ns: int
    start_boot_ns: int  # of the process; compare with /proc/PID/stat field 22
    exec_boot_ns: int  # 0: the process is older than the agent
    generation: int
    pid: int
    ppid: int
    uid: int
    path: str  # tail only with PATH_CUT
    argv: tuple[str, ...]  # head only with CMDLINE_CUT
    identity: IdentityFlag
    device: int
    inode: int
    cgroup_id: int
    unit: str | None
    hook: Hook
    direction: Direction
    transport: str  # "tcp", "udp", or the IANA number
    scope: Scope
    verdict: Verdict
    reason: Reason
    mode: Mode
    destination: Address | None  # inbound: our own; None: a socket that was not made
    destination_port: int
    source: Address | None  # inbound: the peer; None: not bound yet, nobody came yet
    source_port: int
    suppressed: int  # events like this silenced by detent since the last report
    silent: bool  # detent silences the report: only a kill is still to be done
    kill: KillBy | None  # who kills the process; None: nobody, or told a moment ago
    rule: str  # ``file:line`` of the deciding rule, or "unconfigured"
    actions: Actions
    spared: str = ""  # why an existing one that the policy refuses was left alone

    @property
    def name(self) -> str:
        """Base name of the executed file."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def command_line(self) -> str:
        return " ".join(self.argv)

    @property
    def sends_nothing(self) -> bool:
        """A UDP connect() puts nothing on the wire: it never kills or notifies."""
        return self.hook in (Hook.CONNECT, Hook.EXISTING) and (
            self.transport == "udp" and self.direction is Direction.OUT
        )

    @property
    def existing(self) -> bool:
        """Older than the agent: found, not attempted."""
        return self.hook is Hook.EXISTING
