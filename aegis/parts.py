# SPDX-License-Identifier: Apache-2.0
"""What one agent consists of; ``agent`` makes it, ``reloading`` and ``requests`` use it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aegis.actions.log import EventLog
from aegis.actions.react import Reactions, View
from aegis.bpf.kernel import Kernel
from aegis.broker.brokers import Brokers
from aegis.broker.opener import Opener
from aegis.events.context import Context
from aegis.events.history import HISTORY_PATH
from aegis.events.log_file import LOG_PATH
from aegis.existing import Tally
from aegis.facts import Facts
from aegis.keeping import Keeper
from aegis.naming import Naming
from aegis.policy.model import Mode
from aegis.recording import Recorder

GENERATIONS_KEPT = 64  # to name the rules of records judged a moment ago

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line asked for. *mode*: instead of the policy's own."""

    config: Path
    cgroup: Path
    mode: Mode | None = None
    log: Path = LOG_PATH
    history: Path = HISTORY_PATH
    last_good: Path | None = None  # None: not kept for the next boot


@dataclass
class Parts:
    """*say* gets lines for the administrator; what needs a started kernel is None before."""

    options: Options
    say: Say
    kernel: Kernel
    naming: Naming
    context: Context
    reactions: Reactions
    log: EventLog
    keeper: Keeper
    brokers: Brokers
    facts: Facts | None = None
    recorder: Recorder | None = None
    existing: Tally = field(default_factory=Tally)


def make_parts(options: Options, say: Say, view: View, opener: Opener, kernel: Kernel) -> Parts:
    """Everything that can be made before the kernel's part is there."""
    context = Context()
    reactions = Reactions(context, view=view)
    reactions.log = EventLog(options.log, tell=reactions.notice)
    brokers = Brokers(opener, reactions.notice)
    reactions.killer.executioner = brokers.kill
    keeper = Keeper(options.last_good, lambda: context.names, tell=reactions.notice)
    kernel.settled = keeper.offer
    return Parts(
        options=options,
        say=say,
        kernel=kernel,
        naming=Naming(GENERATIONS_KEPT),
        context=context,
        reactions=reactions,
        log=reactions.log,
        keeper=keeper,
        brokers=brokers,
    )
