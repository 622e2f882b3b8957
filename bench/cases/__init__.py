# SPDX-License-Identifier: Apache-2.0
"""One benchmark a file: a name and ``measure(world)``, which yields rows and charts."""
