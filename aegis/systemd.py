# SPDX-License-Identifier: Apache-2.0
"""sd_notify(3): telling systemd how we are; nothing without ``NOTIFY_SOCKET``."""

import os
import socket


def notify(state: str) -> None:
    """Send *state*, such as ``READY=1``, if systemd listens; never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            # "@" is systemd's spelling of the abstract namespace.
            sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            sender.send(state.encode())
        except OSError:
            return  # systemd then times the start out, which it reports
