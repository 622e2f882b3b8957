# SPDX-License-Identifier: Apache-2.0
"""The agent of ``aegis run``, from its start to its end."""

import argparse
import asyncio

from aegis import control
from aegis.agent import Agent
from aegis.bpf.kernel import Kernel
from aegis.bpf.pins import all_pins
from aegis.broker.opener import Opener
from aegis.cli.output import Output, say
from aegis.errors import ControlError
from aegis.last_good import LAST_GOOD_PATH
from aegis.parts import Options
from aegis.tasks import stay_awake

# What the unit says of it is tested: systemd starts anew whatever ended otherwise.
UNLOADED = 3


def run_agent(args: argparse.Namespace, kernel: Kernel, opener: Opener) -> int:
    """Until it is stopped; return the exit code: ``UNLOADED`` when `aegis unload` asked it to end.

    :raises AegisError: when it cannot start
    """
    output = Output(as_json=args.json)
    kept = args.last_good or (None if args.cgroup else LAST_GOOD_PATH)
    options = Options(args.config, kernel.cgroup, args.mode, args.log, args.history, kept)
    with asyncio.Runner() as runner:  # without a loop there is no coroutine left over
        try:
            agent = runner.run(_run(options, output, opener, kernel))
        finally:
            output.close()
    if args.unload_on_exit:
        unload(kernel.instance)
    return UNLOADED if agent.is_unloaded else 0


def unload(instance: str) -> None:
    """What is in force goes, unless another agent has taken it over meanwhile."""
    try:
        with control.only_one(instance):
            for pins in all_pins(instance):
                pins.remove()
    except ControlError as error:
        say(f"aegis: nothing is unloaded: {error}")


async def _run(options: Options, output: Output, opener: Opener, kernel: Kernel) -> Agent:
    """The agent, once it has ended."""
    stay_awake()
    agent = Agent(options, output.say, output, opener, kernel)
    output.tell = agent.notice
    await agent.run()
    return agent
