#!/usr/bin/env bash
# Runs a command on another kernel, where control groups are of version 2 alone: `uml.sh COMMAND ARGUMENT…`
#
#   this machine ─▶ linux.uml, a Linux kernel that is a program ─▶ init, as root there ─▶ the command, in this directory
#
# It needs User-Mode Linux (Debian: user-mode-linux) and busybox, no virtual machine. The kernel there sees the files of this
# machine, /run apart, which is empty and has the command's temporary files. What the command prints is printed, and its exit
# code is this one's; 125 if the kernel did not come up.
set -euo pipefail

[ "$#" -gt 0 ] || { echo "usage: uml.sh COMMAND ARGUMENT…" >&2; exit 64; }
for program in linux.uml busybox; do
  command -v "$program" >/dev/null || { echo "uml.sh: $program is not installed (scripts/setup.sh test)" >&2; exit 125; }
done

# Memory of that kernel, in MiB: a file, in memory if there is room.
memory=3072
dir="$(mktemp -d /tmp/atoll-uml.XXXXXX)"
place=/dev/shm
[ "$(df --output=avail -k "$place" | tail -1)" -gt $((memory * 1024)) ] || place="$dir"
trap 'rm -rf "$dir"' EXIT

cat >"$dir/init" <<INIT
#!/bin/bash
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir -p /run/tmp /dev/shm /dev/pts
chmod 1777 /run/tmp
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t cgroup2 cgroup /sys/fs/cgroup
busybox insmod "\$(echo /usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko)"
busybox ip link set lo up
export PATH=$(printf %q "$PATH") HOME=/run/tmp TMPDIR=/run/tmp ATOLL_OTHER_KERNEL=1
cd $(printf %q "$PWD")
echo 1 >/proc/sys/kernel/printk
echo "uml: Linux \$(uname -r), controllers of version 2: \$(cat /sys/fs/cgroup/cgroup.controllers)"
$(printf '%q ' "$@") 2>&1
echo "uml: exit \$?"
busybox halt -f
INIT
chmod +x "$dir/init"

code=125
began=
while IFS= read -r line; do
  line="${line%$'\r'}" # its console is a terminal
  case "$line" in
    "uml: Linux "*) began=yes; echo "$line" ;;
    "uml: exit "*) code="${line#uml: exit }"; began= ;;
    # What the kernel says before and after matters only if the command did not come to its end.
    *) if [ -n "$began" ]; then printf '%s\n' "$line"; else printf '%s\n' "$line" >>"$dir/kernel"; fi ;;
  esac
done < <(TMPDIR="$place" linux.uml "mem=${memory}M" rootfstype=hostfs rootflags=/ rw "init=$dir/init" \
  con=null con0=null,fd:1 quiet </dev/null 2>&1)
[ "$code" != 125 ] || cat "$dir/kernel" >&2
exit "$code"
