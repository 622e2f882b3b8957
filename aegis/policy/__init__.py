# SPDX-License-Identifier: Apache-2.0
"""Pure: the vocabulary, the reference verdict and the compiler."""
