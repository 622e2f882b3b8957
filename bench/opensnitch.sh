#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# opensnitch.sh PACKAGE: run Debian's OpenSnitch from its unpacked package. It reads its
# configuration in /etc, so this is run in a mount namespace of its own (unshare --mount), and in
# the network namespace that it is to govern. Everybody may do everything: what is measured is the
# asking. Without kprobes it can only find a process by /proc.
set -eu

package=$(readlink -f "$1")
scratch=$package/scratch
mkdir -p "$scratch"
mount -t tmpfs none "$scratch"
mkdir "$scratch/upper" "$scratch/work"
mount -t overlay overlay \
	-o "lowerdir=$package/etc:/etc,upperdir=$scratch/upper,workdir=$scratch/work" /etc
sed -i -e 's/"ProcMonitorMethod": *"[a-z]*"/"ProcMonitorMethod": "proc"/' \
	-e 's/"Firewall": *"[a-z]*"/"Firewall": "iptables"/' \
	-e "s#/var/log/#$scratch/#" /etc/opensnitchd/default-config.json
mkdir -p /etc/opensnitchd/rules
exec "$package/usr/bin/opensnitchd" -rules-path /etc/opensnitchd/rules
