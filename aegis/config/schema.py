# SPDX-License-Identifier: Apache-2.0
"""The policy language as a JSON schema, for editors; made from the models."""

from typing import Any

from aegis.config.models import AppTable, GlobalTable, NotifyTable, Table, WhitelistTable


def json_schema() -> dict[str, Any]:
    """Return the schema of one policy file (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Aegis policy",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": _table(GlobalTable),
            "whitelist": _table(WhitelistTable),
            "notify": _table(NotifyTable),
            "app": {"type": "array", "items": _table(AppTable)},
        },
    }


def _table(model: type[Table]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema["properties"] = {
        key: _without_null(value) for key, value in schema["properties"].items()
    }
    schema["description"] = schema["description"].replace("``", "")
    del schema["title"]
    return schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop what only says that a key may be missing: TOML has no null."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
    if "default" in kept and kept["default"] is None:
        del kept["default"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **kept}
    return {**kept, "anyOf": kinds} if kinds else kept
