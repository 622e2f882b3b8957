# SPDX-License-Identifier: Apache-2.0
"""One action a file: log, script, notify, kill."""
