# SPDX-License-Identifier: Apache-2.0
"""Enforcement on Debian's own kernels, in virtual machines."""
