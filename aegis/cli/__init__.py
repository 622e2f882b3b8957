# SPDX-License-Identifier: Apache-2.0
"""One command a file; the only code that prints or exits."""
