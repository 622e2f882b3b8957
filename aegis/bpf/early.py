# SPDX-License-Identifier: Apache-2.0
"""The BPF objects, loaded on a thread while the rest of an agent is imported and starts."""

import threading

from aegis.bpf import probe
from aegis.bpf.object import BpfObject
from aegis.bpf.pins import Pins
from aegis.bpf.programs import Programs
from aegis.bpf.tiers import load, worth_trying


class Early:
    """Begins at once. Nothing is loaded where an earlier agent's programs can be adopted."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._object: BpfObject | None = None
        self._error: BaseException | None = None
        self._loaded = threading.Event()
        self._optional: dict[str, Programs | Exception] = {}
        self._thread: threading.Thread | None = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._load()
        except BaseException as error:
            self._error = error
        finally:
            self._loaded.set()
        if self._object is not None:
            self._load_optional(self._object)

    def _load(self) -> None:
        probe.require()
        if not self._pins.is_complete():
            self._object = BpfObject()

    def _load_optional(self, main: BpfObject) -> None:
        """What is only tried: nothing of it is in force before it is attached, later."""
        for name, lacking in worth_trying(main).items():
            if lacking:
                continue
            try:
                self._optional[name] = load(name, main)
            except Exception as error:
                self._optional[name] = error

    def take(self) -> BpfObject | None:
        """What was loaded, once; the caller closes it, after ``close``.

        :raises KernelError: as :class:`BpfObject`
        """
        self._loaded.wait()
        if self._error is not None:
            raise self._error
        taken, self._object = self._object, None
        return taken

    def optional(self, name: str) -> Programs | None:
        """The optional object, loaded; the caller closes it. None: not tried.

        :raises KernelError: when the kernel refused it.
        """
        self._join()
        found = self._optional.pop(name, None)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Let go of what nobody took."""
        self._join()
        for found in self._optional.values():
            if isinstance(found, Programs):
                found.close()
        self._optional.clear()
        if self._object is not None:
            self._object.close()
            self._object = None

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
