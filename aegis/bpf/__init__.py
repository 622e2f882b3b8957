# SPDX-License-Identifier: Apache-2.0
"""The only Python that touches the kernel."""
