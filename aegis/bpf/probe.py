# SPDX-License-Identifier: Apache-2.0
"""What Aegis needs of the machine: one clear line for what is missing."""

from pathlib import Path

from aegis.errors import KernelError

# Bits of /proc/self/status CapEff; numbers from linux/capability.h.
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}


def require(btf: Path = Path("/sys/kernel/btf/vmlinux")) -> None:
    """Return if programs can be loaded at all.

    :raises KernelError: naming the first thing that is missing.
    """
    if not btf.exists():
        raise KernelError(
            f"this kernel has no BTF ({btf}): Aegis needs CONFIG_DEBUG_INFO_BTF=y, "
            "as in every Debian kernel since 11"
        )
    lacking = missing_capabilities()
    if lacking:
        raise KernelError(f"missing {', '.join(lacking)}: run as root (sudo)")


def missing_capabilities() -> list[str]:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    return [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
