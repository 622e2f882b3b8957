# SPDX-License-Identifier: Apache-2.0
"""The path of an allowed program, where it is not the host's: mounts and roots of one's own.

The policy is that of test_identity: only /usr/bin/curl may reach 8086, and the
unconfigured reach nothing. The program that calls itself curl is the prober.
"""

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Outcome, Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY
from tests.kernel.test_identity import CURL, PAGE, POLICY
from tests.kernel.workshop import Workshop

# What systemd makes of a service: the host's root bound elsewhere, changed there, moved back.
SERVICE = (
    "mount --rbind / /mnt && mount --bind /mnt/usr /mnt/usr && "
    "mount -o remount,bind,ro,nosuid /mnt/usr && mount -t tmpfs none /mnt/tmp && "
    "cd /mnt && pivot_root . . && umount -l . && cd / && "
    'if touch /usr/x 2>/dev/null; then exit 9; fi && exec "$@"'
)

# In a mount namespace, root there. $0 is the prober; /mnt is a place that is everywhere.
ROOM = "mount -t tmpfs none /mnt && mkdir -p /mnt/usr/bin /mnt/old /mnt/work && "
COPY = 'cp "$0" /mnt/usr/bin/curl && '
RUN = f'exec {CURL} "$@"'

# What needs no more than a user and mount namespace of one's own.
MOUNTS = {
    "tmpfs-over-the-directory": f"{ROOM}{COPY} mount --bind /mnt/usr/bin /usr/bin && {RUN}",
    "overlay-over-the-directory": (
        f"{ROOM}{COPY} mount -t overlay -o lowerdir=/mnt/usr/bin:/usr/bin none /usr/bin && {RUN}"
    ),
    "detached-mount": f"{ROOM}{COPY} exec 3</mnt/usr/bin/curl && umount -l /mnt && "
    'exec /proc/self/fd/3 "$@"',
    "detached-bind": f'mount --bind "$0" {CURL} && exec 3<{CURL} && umount -l {CURL} && '
    'exec /proc/self/fd/3 "$@"',
    "symlink-in-a-new-usr": f"{ROOM}{COPY} ln -s usr/bin /mnt/bin && mount --rbind /mnt /usr && "
    'exec /usr/bin/curl "$@"',
    "chroot": f'{ROOM}{COPY} exec chroot /mnt {CURL} "$@"',
}
# Where the whole root is another one: what a container is. Root makes them, too.
ROOTS = {
    "pivot-root": f"{ROOM}{COPY} cd /mnt && pivot_root . old && {RUN}",
    "pivot-root-to-an-overlay": (
        f"{ROOM}{COPY} mkdir /mnt/up && mount -t tmpfs none /mnt/work && "
        "mkdir /mnt/work/up /mnt/work/work /mnt/work/root && "
        "mount -t overlay -o lowerdir=/mnt,upperdir=/mnt/work/up,workdir=/mnt/work/work "
        f"none /mnt/work/root && cd /mnt/work/root && pivot_root . old && {RUN}"
    ),
}


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents) -> Agent:
    servers.open(8086, 8087)
    started, _ = agents.share(POLICY)
    return started


def in_a_namespace(workshop: Workshop, line: str, *, user: bool) -> list[str]:
    """*line*, its ``$0`` the false curl; *user*: in a user namespace as well."""
    own = ["--user", "--map-root-user"] if user else []
    shell = ["sh", "-c", line, str(workshop.prober), "tcp", "127.0.0.1", "8086"]
    return ["unshare", *own, "--mount", "--propagation", "private", *shell]


def assert_it_is_nobody(agent: Agent, since: int, outcome: Outcome) -> None:
    """Refused, and the event makes no claim for the file."""
    assert outcome.word == "EPERM", outcome.stderr
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "rule.name") == "unconfigured"
    assert "host-fs" not in identity(event)
    assert "trusted" not in identity(event)


def identity(event: Event) -> list[str]:
    words = field(event, "aegis.identity")
    assert isinstance(words, list)
    return words


@pytest.mark.parametrize("line", [pytest.param(v, id=k) for k, v in (MOUNTS | ROOTS).items()])
def test_a_user_who_mounts_is_nobody(
    line: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """An unprivileged user, all-powerful in namespaces of their own."""
    since = agent.mark()
    outcome = programs.run(*in_a_namespace(workshop, line, user=True), user=NOBODY)
    assert_it_is_nobody(agent, since, outcome)


@pytest.mark.parametrize("line", [pytest.param(v, id=k) for k, v in ROOTS.items()])
def test_a_container_is_not_the_host(
    line: str, agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Made by root without a user namespace, as container engines do."""
    since = agent.mark()
    outcome = programs.run(*in_a_namespace(workshop, line, user=False))
    assert_it_is_nobody(agent, since, outcome)


@pytest.mark.parametrize(
    "within",
    [pytest.param([], id="protect-system"), pytest.param(["unshare", "--user"], id="and-users")],
)
def test_a_service_built_as_systemd_builds_it_keeps_its_rule(
    within: list[str], agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """ProtectSystem, PrivateTmp, NoNewPrivileges, PrivateUsers: the host's files all the same."""
    unshared = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SERVICE, "sh"]
    curl = [CURL, "-sS", "--noproxy", "*"]
    outcome = programs.run(*unshared, *within, *curl, PAGE)
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    since = agent.mark()
    outcome = programs.run(*unshared, *within, *curl, PAGE.replace("8086", "8087"))
    assert outcome.code == 7, outcome.stderr
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "process.executable") == CURL


def test_a_program_executed_by_its_descriptor_is_that_file(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """fexecve: neither the descriptor's name nor that of a link to it counts."""
    line = f'exec 3<{CURL} && exec /proc/self/fd/3 "$@"'
    outcome = programs.run("sh", "-c", line, "sh", "-sS", "--noproxy", "*", PAGE)
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    line = f'exec 3<"$0" && exec -a {CURL} /proc/self/fd/3 "$@"'
    outcome = programs.run("bash", "-c", line, workshop.prober, "tcp", "127.0.0.1", "8086")
    assert outcome.word == "EPERM", outcome.stderr


def test_the_end_of_a_long_path_is_no_path(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """A path that does not fit is kept as its tail, which may read like another file's."""
    folder = workshop.new_folder() / ("x" * 250) / "usr/bin"
    folder.mkdir(parents=True)
    (folder / "curl").write_bytes(workshop.prober.read_bytes())
    (folder / "curl").chmod(0o755)
    since = agent.mark()
    outcome = programs.run(folder / "curl", "tcp", "127.0.0.1", "8086")
    assert outcome.word == "EPERM", outcome.stderr
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "process.executable") == CURL
    assert "path-cut" in identity(event)
