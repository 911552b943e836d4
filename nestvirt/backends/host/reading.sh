# What decides about nesting on this host, read and nothing changed. POSIX sh; root sees most, others what they may.
# Output: "@ PART" begins a part; each line of it follows after a space. One machine's words, not to be trusted.
LC_ALL=C
export LC_ALL
kernel=$(uname -r)
PATH=$PATH:/sbin:/usr/sbin

part() { echo "@ $1"; }
text() { sed 's/^/ /'; }
file() { [ -r "$1" ] && text < "$1"; }

part hostname; uname -n | text
part id; file /etc/machine-id
part machine; uname -m | text
part kernel; echo " $kernel"
part system; grep -E '^(ID|ID_LIKE)=' /etc/os-release 2>/dev/null | text
part cpu; sed -n '1,/^$/p' /proc/cpuinfo | grep -E '^(vendor_id|model name|flags)' | text
part cmdline; file /proc/cmdline
part modules; grep -E '^(kvm|kvm_intel|kvm_amd|vboxdrv|vmmon|xen_evtchn) ' /proc/modules 2>/dev/null | text
part device; [ -c /dev/kvm ] && echo ' /dev/kvm'

for module in kvm_intel kvm_amd; do
  for path in /sys/module/$module/parameters/nested /sys/module/$module/parameters/ept \
    /sys/module/$module/parameters/npt; do
    [ -r "$path" ] && { part "parameter $path"; file "$path"; }
  done
  part "file $module"; modinfo -F filename "$module" 2>/dev/null | text
done

# Every file that modprobe looks at, so that one can be seen to hide another of the same name.
for folder in /etc/modprobe.d /run/modprobe.d /usr/local/lib/modprobe.d /usr/lib/modprobe.d /lib/modprobe.d; do
  [ "$folder" = /lib/modprobe.d ] && [ /lib -ef /usr/lib ] && continue
  for path in "$folder"/*.conf; do
    [ -f "$path" ] || continue
    part "config $path"
    if grep -q kvm "$path" 2>/dev/null; then file "$path"; fi
  done
done
part writable; [ -w /etc/modprobe.d ] && echo ' /etc/modprobe.d'

# Who holds KVM: a VM's name only, for the rest of its command line may hold secrets.
for process in /proc/[0-9]*; do
  if ls -l "$process/fd" 2>/dev/null | grep -qE '/dev/kvm$|anon_inode:kvm-vm'; then
    part "user ${process#/proc/}"
    head -n 1 "$process/comm" 2>/dev/null | text
    tr '\0' '\n' < "$process/cmdline" 2>/dev/null | grep -A 1 -xE -e '-name' -e '-id' | text
  fi
done

# What the initramfs brings along: with the module in it, its own copy of modprobe.d decides.
initramfs() { grep -E 'kvm-(intel|amd)\.ko|etc/modprobe\.d/[^/]*\.conf|lib/modprobe\.d/[^/]*\.conf' | text; }
if [ -r "/boot/initrd.img-$kernel" ] && command -v lsinitramfs >/dev/null; then
  part "initramfs /boot/initrd.img-$kernel"; lsinitramfs "/boot/initrd.img-$kernel" 2>/dev/null | initramfs
elif command -v lsinitrd >/dev/null && [ -r "/boot/initramfs-$kernel.img" ]; then
  part "initramfs /boot/initramfs-$kernel.img"; lsinitrd "/boot/initramfs-$kernel.img" 2>/dev/null | initramfs
elif command -v lsinitrd >/dev/null && [ -r "/boot/initrd-$kernel" ]; then
  part "initramfs /boot/initrd-$kernel"; lsinitrd "/boot/initrd-$kernel" 2>/dev/null | initramfs
elif command -v lsinitcpio >/dev/null && [ -r /boot/initramfs-linux.img ]; then
  part 'initramfs /boot/initramfs-linux.img'; lsinitcpio /boot/initramfs-linux.img 2>/dev/null | initramfs
fi
for tool in update-initramfs dracut mkinitcpio grub-mkconfig proxmox-boot-tool kernel-install bootctl; do
  command -v "$tool" >/dev/null && { part "tool $tool"; }
done
part end
