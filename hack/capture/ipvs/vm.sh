#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots a Debian kernel in qemu, under software emulation, with a root of busybox
# and the tools named, runs a script there as root and stores below OUT what it
# leaves in /out.
#
#	vm.sh KERNEL.deb SCRIPT OUT FILE...
#
# KERNEL.deb is a linux-image-*-cloud-amd64-unsigned package (apt-get download);
# FILEs are programs, which come with their libraries. It needs qemu-system-x86,
# busybox-static, cpio and kmod, and no privilege.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '5,13s/^# \?//p' "$0" >&2; exit 2; }
kernel=$1 script=$2 out=$3
shift 3
export PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

dpkg-deb -x "$kernel" "$work/kernel"
modules=("$work"/kernel/lib/modules/*) image=("$work"/kernel/boot/vmlinuz-*)
root=$work/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,out,lib/modules}
cp "$(command -v busybox)" "$root/bin/"
release=$(basename "${modules[0]}")
mkdir -p "$root/lib/modules/$release/kernel"
cp -r "${modules[0]}"/modules.* "$root/lib/modules/$release/"
for part in kernel/net kernel/lib kernel/crypto kernel/drivers/net/veth.ko kernel/drivers/net/dummy.ko; do
	mkdir -p "$root/lib/modules/$release/$(dirname $part)"
	cp -r "${modules[0]}/$part" "$root/lib/modules/$release/$part"
done
depmod -b "$root" "$release"
for file; do
	install "$(realpath "$(command -v "$file")")" "$root/bin/$(basename "$file")"
	for lib in $(ldd "$(command -v "$file")" 2>/dev/null | grep -o '/[^ ]*' || true); do
		[ -e "$root$lib" ] || install -D "$(realpath "$lib")" "$root$lib"
	done
done
cp "$script" "$root/scene"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin
/bin/busybox mkdir -p /sbin
/bin/busybox --install -s /bin
ln -sf /bin/busybox /sbin/modprobe
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
sh -e /scene; echo $? >/out/status
stty -F /dev/ttyS1 raw
tar -C /out -c . | base64 >/dev/ttyS1
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) | gzip -1 >"$work/initrd"

timeout "${VM_TIMEOUT:-300}" qemu-system-x86_64 -accel tcg -cpu max -m 512 -nographic -no-reboot -nodefaults -net none \
	-kernel "${image[0]}" -initrd "$work/initrd" -append 'console=ttyS0 quiet panic=-1' \
	-serial stdio -serial "file:$work/out" </dev/null >&2
mkdir -p "$work/files" "$out"
tr -d '\r' <"$work/out" | base64 -d | tar -C "$work/files" -x
[ "$(cat "$work/files/status")" = 0 ] || { echo "the script failed in the machine" >&2; exit 1; }
rm "$work/files/status"
cp -r "$work/files/." "$out/"
