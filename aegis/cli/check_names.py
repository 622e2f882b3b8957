# SPDX-License-Identifier: Apache-2.0
"""What the names in a policy mean at this moment, and what of it is worth a doubt."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address

from aegis.config.problem import Problem, Severity
from aegis.names import Answer, NameBook, look_up, read_hosts
from aegis.policy.model import Address, Entry, Policy

TIMEOUT_S = 2.0  # for all names together
MANY = 8  # addresses: more than a service has, fewer than a content network
WORKERS = 16

LookUp = Callable[[str], Answer]


def check_names(
    policy: Policy, *, look_up: LookUp = look_up, timeout: float = TIMEOUT_S
) -> Iterator[Problem]:
    """Yield a warning for each entry whose name means nothing, too little or too much now."""
    listed = list(_named(policy))
    names = dict.fromkeys(name for _, _, name in listed)
    answers = resolve_all(names, look_up, timeout)
    book = NameBook(read_hosts())
    doubts = {name: list(_doubts(name, answers[name], book)) for name in names}
    for key, entry, name in listed:
        for doubt in doubts[name]:
            message = f'"{entry.text}": {doubt}'
            yield Problem(Severity.WARNING, entry.where, key, message)


def _named(policy: Policy) -> Iterator[tuple[str, Entry, str]]:
    for rule in policy.rules:
        for key in ("remotes", "locals"):
            for entry in getattr(rule, key) or ():
                if entry.name is not None:
                    yield f"app.{key}", entry, entry.name


def resolve_all(names: Iterable[str], look_up: LookUp, timeout: float) -> dict[str, Answer]:
    """Return what each name resolves to; an error for those not answered in *timeout* seconds."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
    answers = {name: Answer(error=f"no answer within {timeout:g} s") for name in names}
    for name in answers:
        waiting.put(name)

    def work() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            done.put((name, look_up(name)))

    for _ in range(min(WORKERS, len(answers))):
        # A daemon: a resolver that hangs must not keep the command from ending.
        threading.Thread(target=work, name="resolve", daemon=True).start()
    deadline = time.monotonic() + timeout
    for _ in answers:
        try:
            name, answer = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        answers[name] = answer
    return answers


def _doubts(name: str, answer: Answer, book: NameBook) -> Iterator[str]:
    """The agent asks the same book: what it would refuse is refused here."""
    if answer.error is not None or not answer.addresses:
        yield f"{name} does not resolve, so it allows nothing: {answer.error or 'no address'}"
        return
    for refusal in book.update(name, answer.addresses, now=0.0):
        yield f"{refusal.removeprefix(f'{name}: ')}; write the address itself if it is meant"
    kept = book.resolution().names[name]
    if not kept:
        yield f"{name} allows nothing: every address of it is refused"
    elif len(kept) > MANY:
        yield (
            f"{name} has {len(kept)} addresses now ({_some(kept)}) and may have others in a"
            " minute; many hosts may share them: a network may be what is meant"
        )


def _some(addresses: Iterable[Address]) -> str:
    order = sorted(addresses, key=lambda a: (not isinstance(a, IPv4Address), int(a)))
    return f"{order[0]}, {order[1]}, ..."
