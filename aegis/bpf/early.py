# SPDX-License-Identifier: Apache-2.0
"""The BPF object, loaded on a thread while the rest of an agent is imported."""

import threading

from aegis.bpf import probe
from aegis.bpf.object import BpfObject
from aegis.bpf.pins import Pins


class Early:
    """Begins at once. Nothing is loaded where an earlier agent's programs can be adopted."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._object: BpfObject | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._load, daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            probe.require()
            if not self._pins.is_complete():
                self._object = BpfObject()
        except BaseException as error:
            self._error = error

    def take(self) -> BpfObject | None:
        """What was loaded, once; the caller closes it.

        :raises KernelError: as :class:`BpfObject`
        """
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        if self._error is not None:
            raise self._error
        return self._object
