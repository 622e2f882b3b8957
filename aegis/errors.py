# SPDX-License-Identifier: Apache-2.0
"""The errors raised on purpose; anything else that escapes is a defect."""

from pathlib import Path


class AegisError(Exception):
    """Base of every error a user is meant to read: one clear line, or a few."""


class KernelError(AegisError):
    """The kernel, or what it must offer (BTF, cgroup2, a capability), said no."""


class ControlError(AegisError):
    """No running agent answers, or it refused the request."""


class ScriptError(AegisError):
    """A hook script may not be run: wrong owner, mode or kind of file."""


class HistoryError(AegisError):
    """The history file cannot be read or written."""


class HistoryDamagedError(HistoryError):
    """It never will be: what is in it is no database any more."""


class LockOutError(AegisError):
    """A policy would cut what the host is reached or repaired by."""


class BrokerError(AegisError):
    """A process that has the rights of some reaction is not there, or did not do it."""


def said_of(error: BaseException) -> str:
    """One line for what nobody foresaw: what it is, and where it came from."""
    return f"{str(error) or type(error).__name__} ({place_of(error)})"


def place_of(error: BaseException) -> str:
    """File and line that raised it."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
