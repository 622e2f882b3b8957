# SPDX-License-Identifier: Apache-2.0
"""What a notification says, to people and to programs."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from aegis.events.ecs import Record, to_json_line
from aegis.events.text import printable
from aegis.events.where import where

_TEXT_MAX = 1000  # of a command line
_EVENT_MAX = 65536  # bytes of JSON; of a longer event only the texts are sent
_RULES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Message:
    title: str
    text: str
    event: Record | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the body of a webhook; ``title`` and ``message`` as apprise names them."""
        event = self.event
        if event is not None and len(to_json_line(event)) > _EVENT_MAX:
            event = None
        return {"title": self.title, "message": self.text, "event": event}


def event_message(record: Record) -> Message:
    """Return the message about an event; what the program chose is made printable."""
    process, user, ours = record["process"], record["user"], record["aegis"]
    to = record.get("destination", {})
    address = f" ({to['ip']})" if "domain" in to else ""
    title = f"[aegis] {ours['verdict']} on {record['host']['name']}: {process['name']}"
    lines = (
        f"{process['executable']} (pid {process['pid']}, user {user.get('name', user['id'])})",
        process["command_line"][:_TEXT_MAX],
        f"rule {record['rule']['name']}; {ours['count']} times; {record['@timestamp']}",
    )
    title = f"{printable(title)} {where(record)}{address}"
    return Message(title, "\n".join(map(printable, lines)), record)


def digest_message(over: Counter[str], window: int) -> Message:
    """Return the one message about what was over the limits in *window* seconds."""
    count = over.total()
    most = [f"{number} by {rule}" for rule, number in over.most_common(_RULES_SHOWN)]
    if len(over) > _RULES_SHOWN:
        most.append("others")
    text = f"{count} more events within {window} s were not notified of: {', '.join(most)}"
    return Message(f"[aegis] {count} more events", printable(text))
