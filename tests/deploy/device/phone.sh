#!/usr/bin/env bash
# usage: unshare -r -n -m -p -f --kill-child --mount-proc bash phone.sh ADBD_PREFIX SOCKET PORT
# A phone without a phone: a real adbd and an adb server in namespaces of their own. adbd listens on all interfaces and
# asks nobody for leave, which is why the network is private; the server is reached through SOCKET.
# It has a small and a no-exec file system, a clock and a thermometer that tests can set, and runs ARM64 programs in qemu.
set -eu
prefix=$1 socket=$2 port=$3

python3 - <<'PYTHON'
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:  # brings the loopback interface up
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))
PYTHON

root=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir -p "$root"/{data/local/tmp,data/small,data/noexec,proc,dev,tmp,usr,etc,system/bin,adbd,run}
mount -t tmpfs -o size=256k tmpfs "$root/data/small"
mount -t tmpfs -o noexec tmpfs "$root/data/noexec"
for folder in usr etc dev; do mount --rbind "/$folder" "$root/$folder"; done
mount --bind "$prefix" "$root/adbd"
mount -t proc proc "$root/proc"
for folder in bin sbin lib lib64; do
    if [ -L "/$folder" ]; then
        ln -s "usr/$folder" "$root/$folder"
    elif [ -d "/$folder" ]; then
        mkdir "$root/$folder"
        mount --bind "/$folder" "$root/$folder"
    fi
done

cat >"$root/system/bin/getprop" <<'GETPROP'
#!/bin/sh
case "$1" in
ro.product.cpu.abi) echo arm64-v8a ;;
ro.product.model) echo "adbd on loopback" ;;
ro.build.version.release) echo 0 ;;
esac
GETPROP
chmod 755 "$root/system/bin/getprop"

for cpu in $(ls /sys/devices/system/cpu | grep -x 'cpu[0-9]*'); do
    folder="$root/sys/devices/system/cpu/$cpu/cpufreq"
    mkdir -p "$folder"
    for name in scaling_cur_freq scaling_max_freq cpuinfo_max_freq; do echo 2400000 >"$folder/$name"; done
done
mkdir -p "$root/sys/class/thermal/thermal_zone0"
echo 41000 >"$root/sys/class/thermal/thermal_zone0/temp"
echo cpu-thermal >"$root/sys/class/thermal/thermal_zone0/type"

if [ -x /usr/bin/qemu-aarch64-static ] && [ -r /usr/lib/binfmt.d/qemu-aarch64.conf ]; then
    # Private to this user namespace; without it the tests of ARM64 programs skip.
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
        sed 's#^\(:qemu-aarch64:.*:\)[^:]*:[A-Z]*$#\1/usr/bin/qemu-aarch64-static:F#' /usr/lib/binfmt.d/qemu-aarch64.conf \
            >/proc/sys/fs/binfmt_misc/register || true
fi

libraries=/adbd/usr/lib/x86_64-linux-gnu
while :; do # a phone that a test crashed comes back
    PATH=/system/bin:$PATH ADBD_PORT=$port chroot "$root" "$libraries/ld-linux-x86-64.so.2" \
        --library-path "$libraries:$libraries/android" /adbd/usr/lib/android-sdk/platform-tools/adbd || true
    sleep 0.2
done >"$socket.adbd.log" 2>&1 &
HOME=$root/tmp TMPDIR=$root/tmp exec adb -L "localfilesystem:$socket" server nodaemon >"$socket.server.log" 2>&1
