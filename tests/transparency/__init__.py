# SPDX-License-Identifier: Apache-2.0
"""Whether anything else breaks: the same programs with and without Aegis, and what differs."""
