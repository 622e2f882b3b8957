# SPDX-License-Identifier: Apache-2.0
"""Every benchmark, in the order of a whole run."""

from collections.abc import Callable, Iterator

from bench.cases import (
    agent,
    decisions,
    growth,
    latency,
    opensnitch,
    peers,
    pipeline,
    servers,
    spawn,
    tcp_connect,
    udp_connect,
    udp_send,
)
from bench.result import Finding
from bench.world import World

CATALOGUE: dict[str, Callable[[World], Iterator[Finding]]] = {
    module.NAME: module.measure
    for module in (
        udp_connect,
        tcp_connect,
        servers,
        spawn,
        udp_send,
        decisions,
        pipeline,
        latency,
        agent,
        growth,
        opensnitch,
        peers,
    )
}
