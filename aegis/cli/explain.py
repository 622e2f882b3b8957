# SPDX-License-Identifier: Apache-2.0
"""``aegis explain``: what would happen to a connection, and why."""

import argparse
import asyncio
import json
import pwd
import re
from dataclasses import replace
from ipaddress import AddressValueError, ip_address
from pathlib import Path

from aegis.config.files import MAIN_FILE
from aegis.config.load import load_policy
from aegis.config.texts import SOCKETS
from aegis.events.text import json_text, printable
from aegis.names import NameBook, names_in, read_hosts, read_resolvers, resolve
from aegis.policy.explain import Explanation, explain
from aegis.policy.killing import is_never_killed
from aegis.policy.match import match_rule
from aegis.policy.model import (
    Decision,
    Direction,
    Flow,
    Identity,
    Policy,
    Protocol,
    Reason,
    Resolution,
)
from aegis.policy.sentences import destination, outcome
from aegis.subject import Subject, by_name, by_path, by_pid, split

_DESCRIPTION = """\
Say what the policy does with one connection of one program: the verdict, the
actions, the file:line that decides, what the whitelist did and what would change
the answer. Nothing is connected, nothing is changed; no agent and no root needed
(but --pid of another user's process, and a policy only root may read).
"""
_EPILOG = """\
exit status:
  0  the question was answered, whatever the verdict
  1  it could not be: the policy has errors, or there is no such process
  2  wrong usage

examples:
  aegis explain --exe telegraf 192.0.2.7:8086
  aegis explain -c ./aegis.toml --path /usr/bin/curl '[2001:db8::1]:443/tcp'
  sudo aegis explain --pid 4711 127.0.0.53:53/udp --json
  aegis explain --exe nginx --in 10.0.0.9:80    (a connection from 10.0.0.9 to our port 80)
  aegis explain --exe nginx listen:80           (to bind or listen on our port 80)
  aegis explain --exe nginx socket:raw          (to make a raw socket)
"""
_LISTEN = re.compile(r"listen:([0-9]{1,5})(?:/(tcp|udp))?")
_TARGET = re.compile(r"(?:\[([^\]]+)\]|([0-9.]+)):([0-9]{1,5})(?:/(tcp|udp))?")
RESOLVE_SECONDS = 5.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to ``aegis``."""
    parser = subparsers.add_parser(
        "explain",
        help="say what would happen to a connection, and why",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=MAIN_FILE,
        metavar="FILE",
        help="the main policy file (default: %(default)s)",
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--path", metavar="P", help="the program in this file")
    who.add_argument("--exe", metavar="NAME", help="a program of this base name")
    who.add_argument("--pid", type=int, metavar="N", help="this running process")
    parser.add_argument("--cmdline", metavar="S", help="its arguments, joined by one space")
    parser.add_argument(
        "--user", type=_uid, metavar="U", help="run by this user or uid (default: root)"
    )
    parser.add_argument("--unit", metavar="U", help="run in this systemd unit")
    parser.add_argument(
        "--in",
        dest="inbound",
        action="store_true",
        help="inbound: ADDRESS is the peer's, PORT is ours",
    )
    parser.add_argument(
        "flow",
        type=_flow,
        metavar="ADDRESS:PORT[/tcp|/udp]",
        help="where to; IPv6 in brackets. Or listen:PORT[/tcp|/udp], or socket:KIND",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer, print, and return the exit status.

    :raises AegisError: if there is no policy to ask, or no such program
    """
    flow = replace(args.flow, direction=Direction.IN) if args.inbound else args.flow
    loaded = load_policy(args.config, check_trust=args.config == MAIN_FILE)
    subject = _subject(args)
    resolution, notes = asyncio.run(_resolve(loaded.policy, subject))
    answer = explain(loaded.policy, resolution, subject.identity, flow)
    notes += _spared(loaded.policy, answer.decision, subject.identity)
    subject = replace(subject, notes=(*subject.notes, *notes))
    if args.json:
        print(json.dumps(_as_json(answer, subject, flow), indent=2))
    else:
        _print_text(answer, subject, flow)
    return 0


def _flow(text: str) -> Flow:
    """Parse the destination, the port to listen on, or the kind of socket."""
    if text.startswith("socket:"):
        return _socket(text.removeprefix("socket:"))
    if match := _LISTEN.fullmatch(text):
        nobody = ip_address("0.0.0.0")  # noqa: S104  # nobody came yet
        port = _port(match[1])
        return Flow(nobody, port, Protocol(match[2] or "tcp"), Direction.IN, listening=True)
    match = _TARGET.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not ADDRESS:PORT, such as 192.0.2.7:443 or [2001:db8::1]:53/udp"
        )
    try:
        address = ip_address(match[1] or match[2])
    except (AddressValueError, ValueError):
        raise argparse.ArgumentTypeError(f"'{match[1] or match[2]}' is no address") from None
    return Flow(address, _port(match[3]), Protocol(match[4] or "tcp"))


def _port(text: str) -> int:
    if int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is over 65535, the last port")
    return int(text)


def _socket(kind: str) -> Flow:
    if kind not in SOCKETS:
        known = ", ".join(SOCKETS)
        raise argparse.ArgumentTypeError(f"'{kind}' is no kind of socket; there are {known}")
    return Flow(ip_address("0.0.0.0"), 0, socket=kind)  # noqa: S104  # it goes nowhere yet


def _uid(text: str) -> int:
    """Parse a user name or uid."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user '{text}'") from None


def _subject(args: argparse.Namespace) -> Subject:
    if args.pid is not None:
        subject = by_pid(args.pid)
        if args.cmdline is not None:
            subject = replace(subject, identity=replace(subject.identity, argv=split(args.cmdline)))
    elif args.path is not None:
        subject = by_path(args.path, args.cmdline)
    else:
        subject = by_name(args.exe, args.cmdline)
    identity = subject.identity
    if args.user is not None:
        identity = replace(identity, user=args.user)
    if args.unit is not None:
        identity = replace(identity, unit=args.unit)
    return replace(subject, identity=identity)


async def _resolve(policy: Policy, subject: Subject) -> tuple[Resolution, list[str]]:
    """Look up the names that can matter: those of the governing rule and the whitelist."""
    rule = match_rule(policy, subject.identity)
    names = names_in(replace(policy, rules=(rule,) if rule else ()))
    book = NameBook(read_hosts(), read_resolvers())
    notes: list[str] = []
    answers = await asyncio.gather(*(resolve(name, RESOLVE_SECONDS) for name in names))
    for (name, places), answer in zip(names.items(), answers, strict=True):
        if answer.error:
            notes.append(f"{places[0]}: {name} allows nothing: {answer.error}")
        notes += book.update(name, answer.addresses, 0)
    return book.resolution(), notes


def _spared(policy: Policy, decision: Decision, identity: Identity) -> list[str]:
    listed, path = policy.settings.never_kill, identity.path or identity.exe or ""
    if decision.actions.kill and is_never_killed(path, listed, trusted=identity.trusted):
        return ["[global] never_kill lists it: it is blocked and not killed"]
    return []


def _print_text(answer: Explanation, subject: Subject, flow: Flow) -> None:
    decision = answer.decision
    print(printable(f"{_who(subject)} {_where_to(flow)}: {outcome(decision)}"))
    unconfigured = decision.reason is Reason.UNCONFIGURED
    place = decision.where or ("unconfigured" if unconfigured else "built in")
    lines = [
        ("why", answer.why),
        ("decided by", str(place)),
        ("scope", str(decision.scope)),
        ("whitelist", answer.whitelist),
    ]
    for name, text in lines:
        print(printable(f"  {name + ':':<12}{text}"))
    for title, texts in (("otherwise", map(str, answer.changes)), ("note", subject.notes)):
        for text in texts:
            print(printable(f"  {title + ':':<12}{text}"))


def _who(subject: Subject) -> str:
    identity = subject.identity
    return identity.path or identity.exe or "a program"


def _where_to(flow: Flow) -> str:
    if flow.socket is not None:
        return f"to make a {flow.socket} socket"
    if flow.listening:
        return f"to listen on port {flow.port}/{flow.protocol}"
    to = f"{destination(flow.address, flow.port)}/{flow.protocol}"
    if flow.direction is Direction.OUT:
        return f"to {to}"
    return f"from {destination(flow.address)} to port {flow.port}/{flow.protocol}"


def _as_json(answer: Explanation, subject: Subject, flow: Flow) -> dict[str, object]:
    decision, identity = answer.decision, subject.identity
    return {
        "verdict": decision.verdict,
        "actions": list(decision.actions.names()),
        "reason": decision.reason,
        "scope": decision.scope,
        "rule": json_text(str(decision.rule.where)) if decision.rule else "unconfigured",
        "where": json_text(str(decision.where)) if decision.where else None,
        "entry": json_text(decision.entry.text) if decision.entry else None,
        "why": json_text(answer.why),
        "whitelist": json_text(answer.whitelist),
        "changes": [
            {
                "what": json_text(change.what),
                "verdict": change.decision.verdict,
                "actions": list(change.decision.actions.names()),
            }
            for change in answer.changes
        ],
        "program": {
            "path": json_text(identity.path) if identity.path else None,
            "exe": json_text(identity.exe) if identity.exe else None,
            "argv": [json_text(word) for word in identity.argv or ()],
            "uid": identity.user,
            "unit": json_text(identity.unit) if identity.unit else None,
            "host_fs": identity.host_fs,
            "trusted": identity.trusted,
        },
        "flow": {
            "address": str(flow.address),
            "port": flow.port,
            "protocol": flow.protocol,
            "direction": flow.direction,
            "listening": flow.listening,
            "socket": flow.socket,
        },
        "notes": [json_text(note) for note in subject.notes],
    }
