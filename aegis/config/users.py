# SPDX-License-Identifier: Apache-2.0
"""Users of this host, as a policy names them."""

import pwd
import re

from aegis.config.limits import UID
from aegis.config.problem import Problems
from aegis.config.texts import did_you_mean
from aegis.policy.model import Where


def uid_of(user: str | int) -> int | None:
    """The uid; None when nobody is called that. A name wins over a number: there may be a 1000."""
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return int(user) if re.fullmatch(r"[0-9]{1,10}", user) and int(user) <= UID else None


def check_account(user: str | int, where: Where, key: str, problems: Problems) -> int:
    """Return the uid of a user that something can be run as: one with an account."""
    uid = uid_of(user)
    try:
        return pwd.getpwuid(-1 if uid is None else uid).pw_uid
    except KeyError:
        problems.error(where, key, explain_unknown(str(user)))
        return UID


def explain_unknown(user: str) -> str:
    """Why *user* cannot be meant, and who perhaps is."""
    names = [entry.pw_name for entry in pwd.getpwall()]
    return f'there is no user "{user}"{did_you_mean(user, names)}'
