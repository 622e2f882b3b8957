# SPDX-License-Identifier: Apache-2.0
"""Real programs, real connections, the real agent; needs root, BTF and cgroup2."""
