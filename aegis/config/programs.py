# SPDX-License-Identifier: Apache-2.0
"""Programs that need a second thought in a policy, by the base name of their file."""

import re

# Whoever runs one of these runs any program: they are one identity for all scripts.
_INTERPRETER = re.compile(
    r"(?:python|pypy|perl|ruby|php|php-cgi|lua|luajit|tclsh|node|nodejs|deno|bun|java|mono"
    r"|guile|Rscript|expect)[0-9.-]*"
    r"|(?:ba|da|k|mk|z|fi|a|c|tc|rba)?sh|busybox|toybox|g?awk|mawk|env|xargs"
)
_LOADER = re.compile(r"ld\.so|ld-(?:linux|musl).*\.so(?:\.[0-9]+)?")

# Refused, they leave nobody able to log in, resolve, get an address or repair.
_LIFELINES = {
    "the way in": (
        "sshd",
        "sshd-session",
        "ssh.service",
        "dropbear",
        "systemd",
        "dbus-daemon",
        "sudo",
    ),
    "the resolver": ("systemd-resolved", "dnsmasq", "unbound", "named", "nscd", "resolvconf"),
    "the network set-up": (
        "systemd-networkd",
        "NetworkManager",
        "dhclient",
        "dhcpcd",
        "udhcpc",
        "networking",
        "wpa_supplicant",
    ),
    "the package manager": (
        "apt",
        "apt-get",
        "aptitude",
        "dpkg",
        "http",  # /usr/lib/apt/methods, which does the talking
        "https",
        "unattended-upgrades",
        "dnf",
        "yum",
        "rpm",
    ),
}
_LIFELINE_OF = {name: what for what, names in _LIFELINES.items() for name in names}


def is_interpreter(exe: str) -> bool:
    return _INTERPRETER.fullmatch(exe) is not None


def is_loader(exe: str) -> bool:
    """Whether it is the dynamic loader, which runs any file given to it."""
    return _LOADER.fullmatch(exe) is not None


def lifeline(name: str) -> str | None:
    """What is lost when the program or unit *name* is refused; None: nothing vital."""
    return _LIFELINE_OF.get(name) or _LIFELINE_OF.get(re.sub(r"\.(service|socket)$", "", name))
