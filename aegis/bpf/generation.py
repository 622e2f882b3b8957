# SPDX-License-Identifier: Apache-2.0
"""One generation of a policy as packed map entries; pure, no kernel."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aegis._bpf import lib
from aegis.bpf.layout import layout
from aegis.bpf.portsets import PortSets
from aegis.errors import KernelError
from aegis.policy.model import Actions, Direction, Mode, Rule, Scope
from aegis.policy.tables import App, Ports, Selector, Tables

Entries = list[tuple[bytes, bytes]]

SCOPES = {
    Scope.REMOTE: lib.AEGIS_SCOPE_REMOTE,
    Scope.LOCAL: lib.AEGIS_SCOPE_LOCAL,
    Scope.LISTEN: lib.AEGIS_SCOPE_LISTEN,
    Scope.PEER: lib.AEGIS_SCOPE_PEER,
    Scope.SOCKET: lib.AEGIS_SCOPE_SOCKET,
}
SOCKETS = {
    "sctp": lib.AEGIS_SOCKET_SCTP,
    "dccp": lib.AEGIS_SOCKET_DCCP,
    "udplite": lib.AEGIS_SOCKET_UDPLITE,
    "raw": lib.AEGIS_SOCKET_RAW,
    "packet": lib.AEGIS_SOCKET_PACKET,
    "icmp": lib.AEGIS_SOCKET_ICMP,
    "vsock": lib.AEGIS_SOCKET_VSOCK,
    "other": lib.AEGIS_SOCKET_OTHER,
}
MODES = {Mode.ENFORCE: lib.AEGIS_MODE_ENFORCE, Mode.OBSERVE: lib.AEGIS_MODE_OBSERVE}
DIRECTIONS = {
    Direction.OUT: lib.AEGIS_DIRECTION_OUT,
    Direction.IN: lib.AEGIS_DIRECTION_IN,
}
# Kind of selector text -> (map, struct of its key).
TEXTS = {
    "exe": ("exes", "aegis_name"),
    "path": ("paths", "aegis_text"),
    "cmdline": ("cmdlines", "aegis_text"),
    "unit": ("units", "aegis_unit"),
}
_BITS = {
    "exe": lib.AEGIS_SELECT_EXE,
    "path": lib.AEGIS_SELECT_PATH,
    "cmdline": lib.AEGIS_SELECT_CMDLINE,
    "unit": lib.AEGIS_SELECT_UNIT,
}
# All of a host key but its address is always part of the prefix.
_FIXED_BITS = 8 * layout("aegis_host_key").size - 128
_CONDITIONS = lib.AEGIS_SELECT_USER | lib.AEGIS_SELECT_UNIT

TextId = Callable[[str, str], int]
"""Kind of selector and its text to the kernel's id for it, never 0."""


@dataclass
class Packed:
    """Entries by map name; *config* is the generation's row of ``configs``."""

    config: bytes
    arrays: dict[str, Entries] = field(default_factory=dict)  # overwritten, never deleted
    hashes: dict[str, Entries] = field(default_factory=dict)  # the generation is in the key


def action_bits(actions: Actions) -> int:
    named = {
        lib.AEGIS_ACTION_LOG: actions.log,
        lib.AEGIS_ACTION_NOTIFY: actions.notify,
        lib.AEGIS_ACTION_SCRIPT: bool(actions.scripts),
        lib.AEGIS_ACTION_BLOCK: actions.block,
        lib.AEGIS_ACTION_KILL: actions.kill,
        lib.AEGIS_ACTION_ALLOW: actions.allow,
        lib.AEGIS_ACTION_AGENT_KILLS: actions.agent_kills,
    }
    return sum(bit for bit, wanted in named.items() if wanted)


def rule_id(rule: Rule | None) -> int:
    """The same number for the same selectors, whatever the generation; 0: no rule."""
    if rule is None:
        return 0
    digest = hashlib.blake2b(repr(rule.selectors).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little") or 1


def pack_tables(
    tables: Tables, generation: int, text_id: TextId, expires_boot_ns: int = 0
) -> Packed:
    """Number and pack *tables*; *expires_boot_ns*: when they are out of force again, or 0.

    :raises KernelError: naming the limit that is exceeded.
    """
    ports = PortSets()
    hosts, nets, used = _pack_nets(tables, generation, ports)
    apps = list(_pack_apps(tables, generation, ports, used))
    rules, masks = _pack_selectors(tables.selectors, generation, text_id)
    slot = generation & 1
    return Packed(
        config=_pack_config(tables, generation, masks, expires_boot_ns),
        arrays={
            "apps": apps,
            "port_dirs": _numbered(ports.directories(), slot * lib.AEGIS_DIRS_MAX),
            "port_pages": _numbered(ports.pages(), slot * lib.AEGIS_PAGES_MAX),
        },
        hashes={"hosts": hosts, "nets": nets, "rules": rules},
    )


def index_key(index: int) -> bytes:
    """A __u32 in host order: key of an array map, or an app number."""
    return index.to_bytes(4, sys.byteorder)


def _numbered(rows: list[tuple[int, bytes]], first: int) -> Entries:
    return [(index_key(first + number), row) for number, row in rows]


def _pack_config(tables: Tables, generation: int, masks: list[int], expires_boot_ns: int) -> bytes:
    if len(masks) > lib.AEGIS_MASKS_MAX:
        raise KernelError(f"over {lib.AEGIS_MASKS_MAX} combinations of selectors: too many")
    return layout("aegis_config").pack(
        expires_boot_ns=expires_boot_ns,
        generation=generation,
        mode=MODES[tables.mode],
        mask_count=len(masks),
        kill_budget=tables.kill_budget,
        unconfigured_actions=action_bits(tables.unconfigured_actions),
        refuses_inbound=tables.refuses_inbound,
        watches_inbound=tables.watches_inbound,
        has_cmdline=any(mask & lib.AEGIS_SELECT_CMDLINE for mask in masks),
        deny_socket_fds=tables.deny_socket_fds,
        masks=bytes(masks),
    )


def _pack_nets(
    tables: Tables, generation: int, sets: PortSets
) -> tuple[Entries, Entries, dict[int, int]]:
    """Return hosts, nets, and each app's ``AEGIS_APP_HOSTS``/``NETS`` flags."""
    host_key = layout("aegis_host_key").packer("generation", "app", "scope", "addr")
    value = layout("aegis_ports").struct.pack
    hosts: Entries = []
    nets: Entries = []
    used: dict[int, int] = {}
    numbers: dict[Ports, bytes] = {}
    for net, ports in tables.nets.items():
        packed = numbers.get(ports)
        if packed is None:
            packed = numbers[ports] = value(sets.number(ports.tcp), sets.number(ports.udp))
        scope = SCOPES[net.scope]
        key = host_key(generation, net.app, scope, net.address)
        exact = net.length == 128
        if exact:
            hosts.append((key, packed))
        else:
            # struct aegis_net_key is the prefix length and then a host key.
            nets.append((index_key(_FIXED_BITS + net.length) + key, packed))
        flag = lib.AEGIS_APP_HOSTS if exact else lib.AEGIS_APP_NETS
        used[net.app] = used.get(net.app, 0) | flag << scope
    return hosts, nets, used


def _pack_apps(
    tables: Tables, generation: int, sets: PortSets, used: dict[int, int]
) -> Iterator[tuple[bytes, bytes]]:
    first = (generation & 1) * lib.AEGIS_APPS_MAX
    for number, app in enumerate(tables.apps):
        base = {
            f"base.{SCOPES[scope]}.{protocol}": sets.number(getattr(ports, protocol))
            for scope, ports in app.base.items()
            for protocol in ("tcp", "udp")
        }
        row = layout("aegis_app").pack(
            rule_id=rule_id(app.rule),
            detent_s=app.detent,
            flags=_app_flags(app) | used.get(number, 0),
            actions=action_bits(app.actions),
            sockets=sum(SOCKETS[word] for word in app.sockets),
            **base,
        )
        yield index_key(first + number), row


def _app_flags(app: App) -> int:
    named = {
        lib.AEGIS_APP_STRICT: app.strict,
        lib.AEGIS_APP_IGNORE: app.ignore,
        lib.AEGIS_APP_NEEDS_TRUST: app.needs_trust,
        lib.AEGIS_APP_NEEDS_ARGV0: app.needs_argv0,
    }
    return sum(bit for bit, wanted in named.items() if wanted)


def _mask_of(selector: Selector) -> int:
    mask: int = sum(b for kind, b in _BITS.items() if getattr(selector, kind) is not None)
    if selector.user is not None:
        mask |= lib.AEGIS_SELECT_USER
    if selector.path is not None and selector.any_namespace:
        mask ^= lib.AEGIS_SELECT_PATH | lib.AEGIS_SELECT_ANY_PATH
    return mask | (lib.AEGIS_SELECT_WHITELIST if selector.whitelist else 0)


def _pack_selectors(
    selectors: tuple[Selector, ...], generation: int, text_id: TextId
) -> tuple[Entries, list[int]]:
    """Return the keys of ``rules``, and the selector combinations in use.

    A selector with user or unit also gets a "shadow" key without them, holding
    the highest such app: it tells the kernel whom to ask again at connect.
    """
    pack = layout("aegis_rule_key").packer(
        "generation", "mask", "exe", "cmdline", "path", "uid", "unit"
    )
    best: dict[bytes, int] = {}
    masks: dict[int, None] = {}

    def add(mask: int, ids: dict[str, int], uid: int, app: int) -> None:
        unit = ids.get("unit", 0) if mask & lib.AEGIS_SELECT_UNIT else 0
        texts = (ids.get(kind, 0) for kind in ("exe", "cmdline", "path"))
        key = pack(generation, mask, *texts, uid, unit)
        best[key] = max(best.get(key, 0), app)
        masks[mask] = None

    for selector in selectors:
        given = {kind: getattr(selector, kind) for kind in TEXTS}
        ids = {kind: text_id(kind, text) for kind, text in given.items() if text is not None}
        mask = _mask_of(selector)
        add(mask, ids, selector.user or 0, selector.app)
        if mask & _CONDITIONS:
            shadow = mask & ~_CONDITIONS | lib.AEGIS_SELECT_SHADOW
            add(shadow, ids, 0, selector.app)
    value = [(key, index_key(app)) for key, app in best.items()]
    return value, list(masks)
