# SPDX-License-Identifier: Apache-2.0
"""Which programs are never killed, and which kills are therefore the agent's, not the kernel's."""

from collections.abc import Collection
from dataclasses import replace

from aegis.policy.model import Actions, Selectors, Settings


def is_never_killed(path: str, listed: Collection[str], *, trusted: bool) -> bool:
    """Whether ``never_kill`` lists the file at *path*.

    A base name is meant for files of root's only (*trusted*), so that nobody
    saves a program by naming it so; a full path says which file it is.
    """
    return path in listed or (trusted and path.rsplit("/", 1)[-1] in listed)


def refine_kill(
    actions: Actions, selectors: Selectors | None, settings: Settings, *, tree: bool
) -> Actions:
    """Return *actions* of a rule (None: of unconfigured programs) with how it kills.

    The kernel kills at once and one process only, by the policy's word alone.
    The agent looks first, where there may be something to see.
    """
    if not actions.kill:
        return actions
    looks = tree or _may_be_listed(selectors, settings.never_kill)
    return replace(actions, kill_tree=tree, agent_kills=looks)


def _may_be_listed(selectors: Selectors | None, listed: Collection[str]) -> bool:
    """Whether a program that *selectors* match may be one of *listed*."""
    if not listed or selectors is None:
        return bool(listed)
    names = {program.rsplit("/", 1)[-1] for program in listed}
    if selectors.path is not None:
        return is_never_killed(selectors.path, listed, trusted=True)
    return selectors.exe is None or selectors.exe in names
