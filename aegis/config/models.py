# SPDX-License-Identifier: Apache-2.0
"""The keys of the policy language, with their types and defaults; no I/O.

Every table is checked by itself, so that one wrong key hides no other. The
JSON schema is made from here too. Defaults are those of ``aegis.policy.model``.
"""

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from aegis.config import texts
from aegis.config.entries import parse_address_entry, parse_destination, parse_port_entry
from aegis.config.limits import CMDLINE_BYTES, EXE_BYTES, PATH_BYTES, SECONDS, UID, UNIT_BYTES
from aegis.policy.model import Entry, Notify, Settings, Whitelist

_SETTINGS: Final = Settings()
_PORTS = r"^[0-9]+(-[0-9]+)?(/(tcp|udp))?$"
_ADDRESS = r"^[0-9A-Fa-f.:]+(/[0-9]+)?$"


def _parsed(parse: Callable[[str], Entry]) -> PlainValidator:
    def validate(value: object) -> Entry:
        if not isinstance(value, str):
            raise ValueError(not_text(value))
        return parse(value)

    return PlainValidator(validate)


def not_text(value: object) -> str:
    """Why *value* cannot stand where a string is wanted."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'{str(value)[:40]} is a number; write "{str(value)[:40]}"'
    return "must be a string, in quotes"


# Lax only about a list becoming a tuple; what is in it stays strict.
_AS_TUPLE = Field(strict=False)

PortEntry = Annotated[
    Entry, _parsed(parse_port_entry), WithJsonSchema({"type": "string", "pattern": _PORTS})
]
AddressEntry = Annotated[
    Entry, _parsed(parse_address_entry), WithJsonSchema({"type": "string", "pattern": _ADDRESS})
]
Destination = Annotated[Entry, _parsed(parse_destination), WithJsonSchema({"type": "string"})]
PortList = Annotated[tuple[PortEntry, ...], _AS_TUPLE]
AddressList = Annotated[tuple[AddressEntry, ...], _AS_TUPLE]
DestinationList = Annotated[tuple[Destination, ...], _AS_TUPLE]

Action = Annotated[
    str,
    AfterValidator(texts.check_action),
    Field(json_schema_extra={"pattern": "^(log|notify|block|kill|allow|script:.+)$"}),
]
ActionList = Annotated[tuple[Action, ...], _AS_TUPLE, AfterValidator(texts.check_actions)]
Directory = Annotated[str, AfterValidator(texts.check_directory)]
DirectoryList = Annotated[tuple[Directory, ...], _AS_TUPLE]
Seconds = Annotated[int, Field(ge=0, le=SECONDS)]
UserName = Annotated[
    str | int,
    PlainValidator(texts.check_user),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": UID}]}
    ),
]
ProgramList = Annotated[tuple[Annotated[str, AfterValidator(texts.check_program)], ...], _AS_TUPLE]
Socket = Annotated[
    str,
    AfterValidator(texts.check_socket),
    Field(json_schema_extra={"enum": list(texts.SOCKETS)}),
]


class Table(BaseModel):
    """What all tables have in common; a misspelt key must fail, or it changes the policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GlobalTable(Table):
    """``[global]``: settings of the whole program."""

    include_dirs: DirectoryList = Field(
        _SETTINGS.include_dirs, description="Directories whose *.toml files are read too."
    )
    script_dirs: DirectoryList = Field(
        _SETTINGS.script_dirs, description="Directories of hook scripts."
    )
    detent: Seconds = Field(
        _SETTINGS.detent, description="Seconds one program:address:port stays quiet once reported."
    )
    default_actions: ActionList = Field(
        _SETTINGS.default_actions.names(),
        description="When a configured program reaches what it is not configured for.",
    )
    unconfigured_actions: ActionList = Field(
        _SETTINGS.unconfigured_actions.names(),
        description="When a program without an [[app]] connects.",
    )
    mode: Annotated[
        str,
        AfterValidator(texts.check_mode),
        Field(json_schema_extra={"enum": ["enforce", "observe"]}),
    ] = Field(str(_SETTINGS.mode), description='"observe" reports, and neither blocks nor kills.')
    inbound: bool = Field(_SETTINGS.inbound, description="Whether inbound is watched at all.")
    sever_existing: bool = Field(
        _SETTINGS.sever_existing,
        description="Whether connections older than the agent that it would block are closed.",
    )
    never_kill: ProgramList = Field(
        _SETTINGS.never_kill, description="Base names or full paths of programs no rule kills."
    )
    kill_tree: bool = Field(
        _SETTINGS.kill_tree, description="Kill also what descends from a program to be killed."
    )
    kill_budget: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        _SETTINGS.kill_budget, description="Kills in a minute; what is over is only reported."
    )
    deny_socket_fds: bool = Field(
        _SETTINGS.deny_socket_fds,
        description="Whether a program with an [[app]] that blocks is refused sockets that"
        " another process hands it.",
    )
    tamper_guard: bool = Field(
        _SETTINGS.tamper_guard,
        description="Whether nobody but Aegis may change its objects in the kernel, or end it.",
    )
    script_timeout: Annotated[int, Field(ge=1, le=86400)] = Field(
        _SETTINGS.script_timeout, description="Seconds after which a hook script is ended."
    )
    script_jobs: Annotated[int, Field(ge=1, le=1024)] = Field(
        _SETTINGS.script_jobs, description="Hook scripts run at once."
    )
    script_queue: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        _SETTINGS.script_queue, description="Hook scripts waiting before a digest is made."
    )
    script_user: UserName | None = Field(
        None, description="User name or uid hook scripts run as; root if not given."
    )
    history_days: Annotated[int, Field(ge=1, le=36500)] = Field(
        _SETTINGS.history_days, description="Days a row of history is kept after its last use."
    )
    history_rows: Annotated[int, Field(ge=100, le=10_000_000)] = Field(
        _SETTINGS.history_rows, description="Rows of history kept; the oldest go first."
    )
    metrics_file: Annotated[str, AfterValidator(texts.check_file)] | None = Field(
        None, description="Where to write numbers for Prometheus' node exporter; nowhere if not."
    )


class WhitelistTable(Table):
    """``[whitelist]``: allowed and not reported, for every program."""

    ips: AddressList = Field((), description="Addresses and networks.")
    ports: PortList = Field((), description="Ports, of any address.")
    programs: ProgramList = Field(
        (), description="Base names or full paths of programs that may do anything."
    )
    resolvers: bool = Field(
        Whitelist.resolvers, description="Port 53 of the nameservers in resolv.conf."
    )


class AppTable(Table):
    """``[[app]]``: one program, and what it may reach. Selectors are ANDed."""

    exe: Annotated[str, AfterValidator(texts.check_exe)] | None = Field(
        None,
        description="Base name of the executable.",
        json_schema_extra={"maxLength": EXE_BYTES, "pattern": "^[^/]+$"},
    )
    path: Annotated[str, AfterValidator(texts.check_path)] | None = Field(
        None,
        description='Full path of the executable; "[kernel]": the kernel\'s own threads.',
        json_schema_extra={"maxLength": PATH_BYTES, "pattern": r"^(/|\[kernel\]$)"},
    )
    cmdline: Annotated[str, AfterValidator(texts.check_cmdline)] | None = Field(
        None,
        description="The command line at exec, or a leading run of its arguments.",
        json_schema_extra={"maxLength": CMDLINE_BYTES},
    )
    user: UserName | None = Field(
        None, description="User name or uid the process has when it connects."
    )
    unit: Annotated[str, AfterValidator(texts.check_unit)] | None = Field(
        None,
        description="The systemd unit it runs in.",
        json_schema_extra={"maxLength": UNIT_BYTES},
    )
    namespace: Annotated[str, AfterValidator(texts.check_namespace)] = Field(
        "host",
        description='"any": the path also matches in containers.',
        json_schema_extra={"enum": ["host", "any"]},
    )
    untrusted_file: bool = Field(
        False, description="Allow also files not owned by root, or writable by others."
    )
    ignore: bool = Field(False, description="Do not watch this program.")
    ports: PortList | None = Field(None, description="Only these ports, remote or local.")
    remotes: DestinationList | None = Field(None, description="Only these, going out.")
    locals: DestinationList | None = Field(None, description="Only these, on this host.")
    local: bool | None = Field(None, description="true: any local connection; false: none.")
    remote: bool | None = Field(None, description="true: any remote connection; false: none.")
    listen: PortList | None = Field(None, description="Only these ports may be listened on.")
    peers: AddressList | None = Field(None, description="Only these addresses may connect in.")
    strict: bool = Field(False, description="[whitelist] does not apply to this program.")
    sockets: Annotated[tuple[Socket, ...], _AS_TUPLE] = Field(
        (), description="Other kinds of socket it may make."
    )
    kill_tree: bool | None = Field(None, description="As in [global], for this program.")
    detent: Seconds | None = Field(None, description="As in [global], for this program.")
    actions: ActionList | None = Field(
        None, description="When it leaves its map; an empty list allows and says nothing."
    )


class NotifyTable(Table):
    """``[notify]``: who is told, beside the hook scripts, and how often."""

    urls_file: Annotated[str, AfterValidator(texts.check_file)] | None = Field(
        None, description="File of URLs, one a line, which root alone may read (mode 0600)."
    )
    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(
        Notify.limit, description="Notifications in a window; one digest tells of the rest."
    )
    rule_limit: Annotated[int, Field(ge=1, le=10_000)] = Field(
        Notify.rule_limit, description="Notifications in a window about one rule."
    )
    window: Annotated[int, Field(ge=1, le=86400)] = Field(
        Notify.window, description="Seconds of a window."
    )
    user: UserName = Field(
        Notify.user, description="User name or uid that sends them; root's rights are not needed."
    )


TABLES: Final[dict[str, type[Table]]] = {
    "global": GlobalTable,
    "whitelist": WhitelistTable,
    "app": AppTable,
    "notify": NotifyTable,
}
