# SPDX-License-Identifier: Apache-2.0
"""Brokers for tests; each is gone afterwards."""

from collections.abc import Iterator

import pytest

from tests.actions.conftest import script_dir, write_script
from tests.broker.served import Served

__all__ = ["script_dir", "write_script"]


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()
