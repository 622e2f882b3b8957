# SPDX-License-Identifier: Apache-2.0
"""The environment of a hook script: what policy-language.md documents, nothing else."""

from aegis.events.ecs import Record
from aegis.events.event import Event
from aegis.events.text import env_value


def script_env(event: Event, record: Record) -> dict[str, str]:
    """Return the AEGIS_* variables of *event*, whose ECS form is *record*.

    Every value went through ``env_value``; what is unknown is empty.
    """
    user = record["user"]
    values = {
        "PID": str(event.pid),
        "EXE": event.path,
        "CMDLINE": event.command_line,
        "DST": "" if event.destination is None else str(event.destination),
        "DPT": str(event.destination_port or ""),
        "SRC": "" if event.source is None else str(event.source),
        "SPT": str(event.source_port or ""),
        "PROTO": event.transport,
        "DIRECTION": event.direction.value,
        "VERDICT": event.verdict.value,
        "ACTIONS": ",".join(event.actions.names()),
        "RULE": event.rule,
        "USER": user.get("name", user["id"]),
        "UID": user["id"],
        "UNIT": event.unit or "",
        "PPID": str(event.ppid),
        "HOST": record["host"]["name"],
        "TIME": record["@timestamp"],
        "EVENT_ID": record["event"]["id"],
        "COUNT": str(1 + event.suppressed),
    }
    return {f"AEGIS_{name}": env_value(value) for name, value in values.items()}
