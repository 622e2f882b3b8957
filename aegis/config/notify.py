# SPDX-License-Identifier: Apache-2.0
"""``[notify]`` of several files into one, and whether its targets can be used."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from aegis.config.problem import Problems
from aegis.config.users import check_account
from aegis.config.validate import FileTables
from aegis.policy.model import Notify, Where
from aegis.policy.targets import parse_targets
from aegis.trust import Trust, TrustError


def merge_notify(files: Sequence[FileTables], trust: Trust | None, problems: Problems) -> Notify:
    """Return ``[notify]`` of all files, the last word winning.

    The file of URLs is looked at with *trust* only: who checks a lone file may
    not be able to read it.
    """
    values: dict[str, Any] = {}
    where: dict[str, Where] = {}
    for file in files:
        for key in sorted(file.notify.model_fields_set) if file.notify else ():
            values[key] = getattr(file.notify, key)
            where[key] = file.document.where("notify", key)
    if "user" in values:
        values["user"] = check_account(values["user"], where["user"], "notify.user", problems)
    notify = Notify(**values)
    if notify.urls_file is not None and trust is not None:
        _check_targets(notify.urls_file, where["urls_file"], trust, problems)
    return notify


def _check_targets(path: str, where: Where, trust: Trust, problems: Problems) -> None:
    key = "notify.urls_file"
    try:
        targets = parse_targets(trust.read(path, private=True))
    except TrustError as error:
        problems.error(where, key, str(error))
    except ValueError as error:
        problems.error(where, key, f"{path}: {error}")
    except OSError as error:
        # Enforcement must not wait for a file that only tells of it.
        problems.warn(where, key, f"{path} cannot be read: {error.strerror}; nobody is notified")
    else:
        lines = [str(target.line) for target in targets if target.needs_apprise]
        if lines and importlib.util.find_spec("apprise") is None:
            need = f"line {lines[0]} needs" if len(lines) == 1 else f"lines {', '.join(lines)} need"
            message = f"{path}: {need} apprise, which is not installed: apt install apprise"
            problems.warn(where, key, message)
