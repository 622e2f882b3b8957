# SPDX-License-Identifier: Apache-2.0
"""The environment of a hook script."""

from ipaddress import ip_address

import pytest

from aegis.actions.script_env import script_env
from aegis.events.context import Context
from aegis.events.ecs import to_ecs
from aegis.policy.model import Actions
from tests.events.factory import HOSTILE, make_event


def test_every_documented_variable_and_no_other() -> None:
    actions = Actions(log=True, notify=True, block=True, scripts=("isolate",))
    event = make_event(actions=actions, source=ip_address("10.0.0.1"), source_port=4000)
    record = to_ecs(event, Context())
    assert script_env(event, record) == {
        "AEGIS_PID": "4242",
        "AEGIS_EXE": "/usr/bin/curl",
        "AEGIS_CMDLINE": "curl -s https://192.0.2.7/",
        "AEGIS_DST": "192.0.2.7",
        "AEGIS_DPT": "443",
        "AEGIS_SRC": "10.0.0.1",
        "AEGIS_SPT": "4000",
        "AEGIS_PROTO": "tcp",
        "AEGIS_DIRECTION": "out",
        "AEGIS_VERDICT": "blocked",
        "AEGIS_ACTIONS": "log,notify,script:isolate,block",
        "AEGIS_RULE": "/etc/aegis.d/curl.toml:3",
        "AEGIS_USER": "root",
        "AEGIS_UID": "0",
        "AEGIS_UNIT": "cron.service",
        "AEGIS_PPID": "4000",
        "AEGIS_HOST": record["host"]["name"],
        "AEGIS_TIME": record["@timestamp"],
        "AEGIS_EVENT_ID": record["event"]["id"],
        "AEGIS_COUNT": "1",
    }


def test_what_is_unknown_is_empty() -> None:
    event = make_event(unit=None, uid=4_000_000_000, suppressed=9)
    env = script_env(event, to_ecs(event, Context()))
    assert env["AEGIS_SRC"] == env["AEGIS_SPT"] == env["AEGIS_UNIT"] == ""
    assert env["AEGIS_USER"] == env["AEGIS_UID"] == "4000000000"
    assert env["AEGIS_COUNT"] == "10"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_encoded(name: str) -> None:
    event = make_event(path=name, argv=(name,), unit=name, rule=name)
    for value in script_env(event, to_ecs(event, Context())).values():
        assert value.isascii() and value.isprintable()
        assert not set(value) & set("$`\\") and not value.startswith("-")
