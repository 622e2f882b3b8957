# SPDX-License-Identifier: Apache-2.0
"""Every benchmark, in the order of a whole run."""

from collections.abc import Callable, Iterator

from bench.cases import udp_connect
from bench.result import Finding
from bench.world import World

CATALOGUE: dict[str, Callable[[World], Iterator[Finding]]] = {
    module.NAME: module.measure for module in (udp_connect,)
}
