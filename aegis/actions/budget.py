# SPDX-License-Identifier: Apache-2.0
"""How often something may happen: never more than *limit* times in any *seconds*."""

import time
from collections import deque
from collections.abc import Callable


class Budget:
    """Remembers when it was used. A budget of 0 allows nothing."""

    def __init__(
        self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        self.seconds = seconds
        self._clock = clock
        self._used: deque[float] = deque()

    def left(self) -> bool:
        """Whether it may happen now."""
        self._forget()
        return len(self._used) < self.limit

    def use(self) -> None:
        """It happens now, whether it may or not."""
        self._forget()
        self._used.append(self._clock())

    def _forget(self) -> None:
        start = self._clock() - self.seconds
        while self._used and self._used[0] <= start:
            self._used.popleft()
