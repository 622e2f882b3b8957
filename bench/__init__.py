# SPDX-License-Identifier: Apache-2.0
"""What Aegis costs, measured beside what it is compared with: ``sudo ./dev bench``."""
