# SPDX-License-Identifier: Apache-2.0
"""The shipped JSON schema is the one of the models, and says what ``check`` says."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli

from aegis.config.models import TABLES
from aegis.config.schema import json_schema
from tests.config.test_founding import MAIN

ETC = Path(__file__).parents[2] / "etc"
EXAMPLE = (ETC / "aegis.toml").read_text()


def validate(text: str) -> None:
    """:raises jsonschema.ValidationError:"""
    jsonschema.Draft202012Validator(json_schema()).validate(tomli.loads(text))


def test_the_shipped_schema_is_current() -> None:
    """Made by ``aegis check --schema > etc/aegis.schema.json``; make it anew after a change."""
    assert json.loads((ETC / "aegis.schema.json").read_text()) == json_schema()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_example_names_the_schema_and_passes_it() -> None:
    """The first line is what editors look for."""
    assert EXAMPLE.splitlines()[0].startswith("#:schema /")
    assert EXAMPLE.splitlines()[0].endswith("/aegis.schema.json")
    validate(EXAMPLE)
    validate(MAIN)


def test_every_key_is_described() -> None:
    """An editor shows the sentence beside the key; no key has a null, which TOML lacks."""
    properties: dict[str, Any] = json_schema()["properties"]
    for name, model in TABLES.items():
        table = properties[name].get("items", properties[name])
        assert set(table["properties"]) == set(model.model_fields)
        assert all(key["description"] for key in table["properties"].values())
    assert "null" not in json.dumps(properties)


@pytest.mark.parametrize(
    "text",
    [
        "[[app]]\nprots = []",
        "[globl]",
        "[app]",
        "[[app]]\nports = [80]",
        '[[app]]\nports = ["bob.com"]',
        '[[app]]\npeers = ["bob.com"]',
        '[[app]]\nactions = ["kil"]',
        '[[app]]\nexe = "/bin/x"',
        '[[app]]\npath = "bin/x"',
        "[[app]]\ndetent = -1",
        "[[app]]\nuser = -1",
        '[[app]]\nsockets = ["tcp"]',
        '[global]\nmode = "off"',
        "[whitelist]\nresolvers = 1",
    ],
)
def test_an_editor_sees_what_check_sees(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(text)


@pytest.mark.parametrize(
    "text",
    [
        '[[app]]\nuser = "root"\nports = ["1-2/udp"]\nactions = ["script:x", "log"]',
        '[[app]]\nuser = 0\npeers = ["::1", "10.0.0.0/8"]\nremotes = ["[::1]:1"]',
        '[[app]]\nnamespace = "any"\ndetent = 0\nlocal = true\nsockets = ["icmp"]',
    ],
)
def test_what_check_accepts_an_editor_accepts(text: str) -> None:
    validate(text)
