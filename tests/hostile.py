# SPDX-License-Identifier: Apache-2.0
"""Hostile command lines through sample hook scripts: none of them may run a thing.

``python -m tests.hostile 100000 [SEED]``, as root. Three lines an event, as
executable, argument and unit; every event runs all four hooks. The hooks do
with the values what careless administrators do, short of making code of them.
"""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegis.actions.script import ScriptRunner
from aegis.actions.script_env import script_env
from aegis.events.ecs import to_ecs
from aegis.events.event import Event
from aegis.policy.model import Settings
from tests.actions.hooks import CONTEXT
from tests.events.factory import HOSTILE, make_event

HOOKS = {
    "sh": r"""#!/bin/sh
for value in "$AEGIS_CMDLINE" "$AEGIS_EXE" "$AEGIS_UNIT"; do
	([ "$value" -eq 1 ]) 2>/dev/null
	(set -- $value; test $# -gt 1; echo $value "$value")
	(echo $((value))) 2>/dev/null
	case $value in *x*) echo "${value#*x}" "${value%%[a-z]*}" ;; esac
done
cat <<TEXT
$AEGIS_CMDLINE $AEGIS_EXE $AEGIS_UNIT
TEXT
""",
    "bash": r"""#!/bin/bash
for value in "$AEGIS_CMDLINE" "$AEGIS_EXE" "$AEGIS_UNIT"; do
	( [[ $value -eq 1 ]]
	(( value > 1 ))
	declare -i number=$value
	printf -v text %d "$value"
	let "number = value"
	declare -A seen; declare -a list
	echo "${list[$value]}" "${text:$value}"
	[[ text =~ $value || text == $value ]]
	read -r first rest <<<$value
	declare -n other=$value
	test -v "$value"
	unset "seen[$value]" ) 2>/dev/null
done
exit 0
""",
    "python": r"""#!/usr/bin/python3 -IS
import os, subprocess, sys
text = sys.stdin.read()
for name in ("AEGIS_CMDLINE", "AEGIS_EXE", "AEGIS_UNIT"):
    value = os.environ[name]
    print("%s" % value, f"{value!r}", "{}".format(value), value.encode("ascii"))
    os.path.expanduser(os.path.expandvars(value))
subprocess.run(["/bin/echo", value], check=True)
""",
    "perl": r"""#!/usr/bin/perl
for (@ENV{qw(AEGIS_CMDLINE AEGIS_EXE AEGIS_UNIT)}) {
	print "$_ @{[ length ]}\n", sprintf("%s", $_);
	my $number = $_ + 0;
	eval { "text" =~ /$_/ };
}
exit system("/bin/echo", $ENV{AEGIS_CMDLINE}) >> 8;
""",
}
_COMMANDS = ("touch {0}", ": >{0}", "echo x>>{0}", "cp /etc/passwd {0}", "touch${{IFS}}{0}")
_WRAPS = (
    "$({})", "`{}`", ";{};", "|{}", "&{}&", "\n{}\n", "||{}", "<({})", "a[$({})]", "x[`{}`]+1",
    "${{x:=$({})}}", "$(({}))", "'; {}; '", '"; {}; "', "\\$({})", "%24({})", "${{a[$({})]}}",
    "(?{{system(q({}))}})", "@{{[system(q({}))]}}", "__import__('os').system('{}')", "{{{}}}",
    "() {{ :;}}; {}", "-exec {} ;", "\x1b]0;{}\x07", "\r{}\r", "seen[$({})]", "*{}*", "~{}",
)  # fmt: skip
_FILLERS = (
    *HOSTILE,
    "a",
    " ",
    "--",
    "-n",
    "=",
    "#",
    "*",
    "?",
    "[",
    "]",
    "\\",
    "!",
    "\udc80",
    "{1..9}",
)


def hostile_line(random_: random.Random, canary: Path) -> str:
    """Return a command line that leaves *canary* behind where it is evaluated."""
    command = random_.choice(_COMMANDS).format(canary)
    parts = [random_.choice(_WRAPS).format(command)]
    for _ in range(random_.randrange(4)):
        parts.insert(random_.randrange(len(parts) + 1), random_.choice(_FILLERS))
    return "".join(parts)


def raw_env(event: Event, record: Mapping[str, Any]) -> dict[str, str]:
    """The environment as it must not be, to show that the hooks are worth something."""
    texts = {"CMDLINE": event.command_line, "EXE": event.path, "UNIT": event.unit or ""}
    return {f"AEGIS_{name}": text.replace("\0", "") for name, text in texts.items()}


def write_hooks(directory: Path) -> None:
    for name, text in HOOKS.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)


async def run_hooks(
    directory: Path, canary: Path, lines: int, seed: int, *, encoded: bool = True
) -> Counter[str]:
    """Run the hooks in *directory* for *lines* lines; return how many ended in which way."""
    random_ = random.Random(seed)  # noqa: S311
    runner = ScriptRunner(Settings(script_dirs=(str(directory),)), lambda *_: None)
    for number in range(0, lines, 3):
        path, arg, unit = (hostile_line(random_, canary) for _ in range(3))
        event = make_event(path=path, argv=(arg,), unit=unit)
        record = to_ecs(event, CONTEXT)
        env = script_env(event, record) if encoded else raw_env(event, record)
        runner.submit(record, env, None)
        if number % 60 == 0 or number + 3 >= lines:
            await runner.drain()
        if canary.exists():
            break
    await runner.drain()
    return runner.outcomes


def main() -> None:
    lines = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="aegis-hostile-", dir="/run"))
    canary = directory / "canary"
    begun = time.monotonic()
    try:
        write_hooks(directory)
        outcomes = asyncio.run(run_hooks(directory, canary, lines, seed))
        print(f"{lines} lines: {dict(outcomes)}, {time.monotonic() - begun:.0f} s")
        sys.exit(f"a line was run: {canary} is there" if canary.exists() else 0)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
