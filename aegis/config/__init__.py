# SPDX-License-Identifier: Apache-2.0
"""TOML files to a policy: models, trust checks, drop-in order, positions."""
