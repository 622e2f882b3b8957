# SPDX-License-Identifier: Apache-2.0
"""What is not used any more goes back to the system."""

from aegis._bpf import lib


def save() -> None:
    """From now on, and of what there is; a start leaves much behind."""
    lib.aegis_save_memory()
