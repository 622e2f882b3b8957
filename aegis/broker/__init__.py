# SPDX-License-Identifier: Apache-2.0
"""Small processes, each with the rights of one kind of reaction, and how the agent asks them."""
