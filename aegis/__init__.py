# SPDX-License-Identifier: Apache-2.0
"""Aegis: which program may talk to whom, decided in the kernel."""

__version__ = "0.1.0"
