#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# alone.sh SCRATCH FILE... -- COMMAND...: run COMMAND with copies of FILEs of its own, in a mount
# namespace of its own (unshare --mount). Else it shares their pages with every other Python on the
# machine, the benchmark's first of all, and its PSS is less than it takes where it is the only one.
set -eu

scratch=$1
shift
mkdir -p "$scratch"
mount -t tmpfs none "$scratch"
number=0
while [ "$1" != -- ]; do
	number=$((number + 1))
	cp "$1" "$scratch/$number"
	mount --bind "$scratch/$number" "$1"
	shift
done
shift
exec "$@"
