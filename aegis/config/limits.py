# SPDX-License-Identifier: Apache-2.0
"""What one policy may hold. A test compares these with ``kernel/aegis.h``."""

EXE_BYTES = 63  # AEGIS_NAME_SIZE less the NUL
PATH_BYTES = 255  # AEGIS_PATH_SIZE less the NUL
CMDLINE_BYTES = 254  # one less: the kernel looks a run up at the NUL after it
UNIT_BYTES = 126  # AEGIS_UNIT_SIZE less two: a name that fills it may be a cut one
APPS = 4096  # AEGIS_APPS_MAX less app 0
PROGRAMS = 4096  # of [whitelist]; with the rules they fill AEGIS_STRINGS_MAX
ENTRIES = 65536  # half of AEGIS_NETS_MAX: two generations share it
SECONDS = 315_360_000  # ten years: longer is a slip of the keyboard
UID = 0xFFFFFFFE  # 0xFFFFFFFF means "no user" to the kernel
