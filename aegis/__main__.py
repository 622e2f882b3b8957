# SPDX-License-Identifier: Apache-2.0
"""``python -m aegis``."""

import sys

from aegis.cli.main import main

sys.exit(main())
