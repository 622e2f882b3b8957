# SPDX-License-Identifier: Apache-2.0
"""What a CPU keeps of who connects there is never another's, nor what they were before.

All on one CPU, since each has its own; and nothing is executed between what is kept and
what must not come of it, since that ends all that is kept.
"""

import pytest

from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4
from tests.kernel.programs import Programs
from tests.kernel.settings import NOBODY
from tests.kernel.workshop import Workshop

POLICY = f"""
[[app]]
exe = "asker-may"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "asker-may-not"
ports = ["8087"]
actions = ["log", "block"]

[[app]]
exe = "asker-user"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "asker-user"
user = "{NOBODY}"
ports = ["8087"]
actions = ["log", "block"]

[global]
unconfigured_actions = ["log", "block"]
"""

# Prints "+" for each time that the port was reached and "-" for each refusal.
TOOLS = f"""
import os, socket, subprocess, sys
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})

def tried(port, times=5):
    told = ""
    for _ in range(times):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                one.connect(("{REMOTE4}", port))
                told += "+"
            except PermissionError:
                told += "-"
    print(told, end=" ", flush=True)

def in_child(act):
    child = os.fork()
    if not child:
        act()
        os._exit(0)
    os.waitpid(child, 0)
    return child
"""

BECOMES_ANOTHER = """
tried(8086)
os.execv(other, [other, "-c", tools + "tried(8086); tried(8087)"])
"""

BECOMES_ANOTHER_USER = f"""
tried(8086)
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
tried(8086)
tried(8087)
"""

# Each of the places for what is kept comes twice.
NEIGHBOURS = """
twice = "tried(8086); print(flush=True); input(); tried(8086)"
one = subprocess.Popen([other, "-c", tools + twice], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
told = one.stdout.readline().decode()
for _ in range(128):
    in_child(lambda: tried(8086, 1))
print("|", told, one.communicate(b"\\n")[0].decode())
"""

# Whoever forks first after that write gets the pid, so one child may not; or somebody who stays.
HEIR = """
def has_heir(pid):
    for _ in range(200):
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
        if in_child(lambda: os.getpid() == pid and tried(8086)) == pid:
            return True
    return False

heirs = 0
while heirs < 3:
    one = subprocess.Popen([other, "-c", tools + "tried(8086)"], stdout=subprocess.PIPE)
    assert one.communicate()[0] == b"+++++ "
    heirs += has_heir(one.pid)
"""


@pytest.fixture(scope="module")
def asker(agents: Agents, workshop: Workshop, programs: Programs) -> "Asker":
    agents.share(POLICY)
    return Asker(workshop, programs)


class Asker:
    """Programs that may reach port 8086, or may not, and change or meet."""

    def __init__(self, workshop: Workshop, programs: Programs) -> None:
        self._programs = programs
        names = ("asker-may", "asker-may-not", "asker-user")
        self._paths = {name: workshop.install(name, "/usr/bin/python3") for name in names}

    def told(self, name: str, script: str, other: str = "asker-may") -> list[str]:
        """What *script* says when the program *name* runs it and knows of *other*."""
        tools = f"other = {str(self._paths[other])!r}\n{TOOLS}"
        outcome = self._programs.run(
            self._paths[name], "-c", f"tools = {tools!r}\n{tools}\n{script}"
        )
        assert outcome.code == 0, outcome.stderr
        return outcome.stdout.split()


def test_after_exec_it_is_another(asker: Asker) -> None:
    """The same process, thread and pid: only the file differs. Either way."""
    assert asker.told("asker-may", BECOMES_ANOTHER, "asker-may-not") == ["+++++", "-----", "+++++"]
    assert asker.told("asker-may-not", BECOMES_ANOTHER) == ["-----", "+++++", "-----"]


def test_with_another_user_another_rule_holds(asker: Asker) -> None:
    assert asker.told("asker-user", BECOMES_ANOTHER_USER) == ["+++++", "-----", "+++++"]


def test_neighbours_do_not_get_each_others_answers(asker: Asker) -> None:
    """One that may, and as many that may not as take each of the places, its own among them."""
    told = asker.told("asker-may-not", NEIGHBOURS)
    assert told == ["-"] * 128 + ["|", "+++++", "+++++"]


def test_who_gets_the_pid_of_another_gets_no_more(asker: Asker) -> None:
    assert asker.told("asker-may-not", HEIR) == ["-----"] * 3
