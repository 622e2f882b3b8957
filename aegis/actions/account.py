# SPDX-License-Identifier: Apache-2.0
"""The user something of ours runs as, with its groups and without our rights."""

import os
import pwd
from dataclasses import dataclass

from aegis.errors import ScriptError


@dataclass(frozen=True, slots=True)
class Account:
    """``aegis.spawn`` sets groups, gid and uid in this order, each for good.

    A user other than root keeps no capability then (capabilities(7)).
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


def account_of(uid: int) -> Account:
    """Return the account of *uid*, with the groups a login would give it.

    :raises ScriptError: when there is none any more
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ScriptError(f"uid {uid} has no account") from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(uid, entry.pw_gid, tuple(groups))
