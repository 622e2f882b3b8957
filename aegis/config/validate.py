# SPDX-License-Identifier: Apache-2.0
"""From a parsed file to typed tables; every error with its place and what to write."""

import re
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aegis.config.document import Document
from aegis.config.limits import PATH_BYTES
from aegis.config.models import (
    TABLES,
    AppTable,
    GlobalTable,
    NotifyTable,
    Table,
    WhitelistTable,
    not_text,
)
from aegis.config.positions import Step
from aegis.config.problem import Problems
from aegis.config.texts import did_you_mean
from aegis.config.users import explain_unknown, uid_of
from aegis.policy.model import Where

_HEADERS = {
    "global": "[global]",
    "whitelist": "[whitelist]",
    "notify": "[notify]",
    "app": "[[app]]",
}
_SCOPES = (("local", "locals"), ("remote", "remotes"))
_Model = TypeVar("_Model", bound=Table)


@dataclass(frozen=True)
class App:
    """One ``[[app]]`` of one file."""

    document: Document
    index: int
    table: AppTable

    def where(self, *path: Step) -> Where:
        """The place of a key of it; without *path*, of its header."""
        return self.document.where("app", self.index, *path)


@dataclass(frozen=True)
class FileTables:
    """What is right in one file; what is wrong went to the problems."""

    document: Document
    settings: GlobalTable | None
    whitelist: WhitelistTable | None
    notify: NotifyTable | None
    apps: tuple[App, ...]


def validate_document(document: Document, problems: Problems) -> FileTables:
    """Check every table of *document* by itself, so that no error hides another."""
    for key in document.data:
        if key not in TABLES:
            problems.error(document.where(key), dotted(key), _explain_top(key))
    return FileTables(
        document,
        _validate_one(document, "global", GlobalTable, problems),
        _validate_one(document, "whitelist", WhitelistTable, problems),
        _validate_one(document, "notify", NotifyTable, problems),
        _validate_apps(document, problems),
    )


def _validate_one(
    document: Document, name: str, model: type[_Model], problems: Problems
) -> _Model | None:
    table = document.data.get(name)
    if table is None:
        return None
    if not isinstance(table, dict):
        message = f"must be one table; write {_HEADERS[name]}"
        problems.error(document.where(name), name, message)
        return None
    return _validate(document, (name,), table, model, problems)


def _validate_apps(document: Document, problems: Problems) -> tuple[App, ...]:
    tables = document.data.get("app", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        message = "write [[app]], with two brackets: there may be several"
        problems.error(document.where("app"), "app", message)
        return ()
    apps: list[App] = []
    for index, table in enumerate(tables):
        _check_scopes(document, index, table, problems)
        _check_user(document, index, table, problems)
        model = _validate(document, ("app", index), table, AppTable, problems)
        if model is not None:
            apps.append(App(document, index, model))
    return tuple(apps)


def _validate(
    document: Document,
    at: tuple[Step, ...],
    table: dict[str, object],
    model: type[_Model],
    problems: Problems,
) -> _Model | None:
    try:
        return model.model_validate(table)
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            path = (*at, *error["loc"])
            problems.error(document.where(*path), dotted(*path), _explain(error, str(at[0])))
        return None


def _check_scopes(
    document: Document, index: int, table: dict[str, object], problems: Problems
) -> None:
    """``local`` is about everything local, ``locals`` about some: one has to go."""
    for scalar, listed in _SCOPES:
        if scalar not in table or listed not in table:
            continue
        drop = listed if table[scalar] is True else scalar
        why = "allows all of it" if table[scalar] is True else "allows none of it"
        message = (
            f"{scalar} = {str(table[scalar]).lower()} {why} and {listed} allows some;"
            f" drop {scalar} to keep the list, or drop {listed}"
        )
        problems.error(document.where("app", index, drop), dotted("app", index, drop), message)


def _check_user(
    document: Document, index: int, table: dict[str, object], problems: Problems
) -> None:
    """Here, so that another wrong key does not hide it."""
    user = table.get("user")
    if isinstance(user, str) and _is_text(user) and uid_of(user) is None:
        problems.error(document.where("app", index, "user"), "app.user", explain_unknown(user))


def dotted(*path: Step) -> str:
    """``app.ports``: the keys of *path*, without the numbers."""
    keys = (step for step in path if isinstance(step, str))
    return ".".join(key if re.fullmatch(r"[\w-]{1,64}", key) else repr(key[:64]) for key in keys)


def _explain(error: ErrorDetails, table: str) -> str:
    """One sentence for what pydantic found, in the words of the policy."""
    value = error["input"]
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        return _explain_unknown(str(error["loc"][-1]), table)
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "tuple_type":
        return f"must be a list; write [{_quoted(value)}]"
    if error["type"] == "string_type":
        return not_text(value)
    if error["type"] == "bool_type":
        return "must be true or false, without quotes"
    if error["type"] == "int_type":
        return "must be a whole number, without quotes"
    if error["type"] == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if error["type"] == "less_than_equal":
        return f"must be at most {context['le']}"
    return error["msg"]


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str | int) and len(str(value)) <= 64 else '"..."'


def _explain_unknown(key: str, table: str) -> str:
    elsewhere = [_HEADERS[name] for name, model in TABLES.items() if key in model.model_fields]
    if elsewhere:
        return f"is not a key of {_HEADERS[table]}, but of {elsewhere[0]}"
    known = TABLES[table].model_fields
    return f"is not a key of {_HEADERS[table]}{did_you_mean(key, known)}"


def _explain_top(key: str) -> str:
    tables = ("app", "global", "whitelist", "notify")
    known = [_HEADERS[name] for name in tables if _knows(name, key)]
    if known:
        return f"stands outside of any table; write {' or '.join(known)} above it"
    headers = ", ".join(_HEADERS.values())
    close = did_you_mean(key, TABLES)
    return f"there is no such table{close or f'; there are {headers}'}"


def _is_text(user: str) -> bool:
    """Whether it could be a name at all; if not, that is told by itself."""
    return bool(user) and "\0" not in user and len(user) <= PATH_BYTES


def _knows(table: str, key: str) -> bool:
    return key in TABLES[table].model_fields
