# What decides about nesting on this host, read and nothing changed. POSIX sh; root sees most, others what they may.
# Output: "@ PART" begins a part; each line of it follows after a space. One machine's words, not to be trusted.
LC_ALL=C
export LC_ALL
kernel=$(uname -r)
PATH=$PATH:/sbin:/usr/sbin

# The shell's own commands where they will do: a program costs more, on a host that may be busy.
part() { echo "@ $1"; }
text() { while IFS= read -r line || [ -n "$line" ]; do printf ' %s\n' "$line"; done; }
file() { [ -r "$1" ] && text < "$1"; }

part hostname; uname -n | text
part id; file /etc/machine-id
part machine; uname -m | text
part kernel; echo " $kernel"
part system; grep -E '^(ID|ID_LIKE)=' /etc/os-release 2>/dev/null | text
part cpu; sed -n '1,/^$/p' /proc/cpuinfo | grep -E '^(vendor_id|model name|flags)' | text
part cmdline; file /proc/cmdline
part sources # of the command line, where they name the parameter
grep -nHE 'kvm[-_](intel|amd)[.]nested' /etc/default/grub /etc/default/grub.d/*.cfg /etc/kernel/cmdline \
  /boot/loader/entries/*.conf 2>/dev/null | cut -d: -f1,2 | text
part said; dmesg 2>/dev/null | grep -iE 'kvm' | tail -n 3 | text
part modules; grep -E '^(kvm|kvm_intel|kvm_amd|vboxdrv|vmmon|xen_evtchn) ' /proc/modules 2>/dev/null | text
part device; [ -c /dev/kvm ] && echo ' /dev/kvm'

# A kernel with both modules built in has both folders, whatever the CPU.
case $(grep -m 1 '^vendor_id' /proc/cpuinfo) in *Intel*) module=kvm_intel ;; *) module=kvm_amd ;; esac
for name in nested ept npt; do
  path=/sys/module/$module/parameters/$name
  [ -r "$path" ] && { part "parameter $path"; file "$path"; }
done
part "file $module"; modinfo -F filename "$module" 2>/dev/null | text

# Every file that modprobe looks at, so that one can be seen to hide another of the same name. The text only of
# those that speak of kvm.
newline='
'
for folder in /etc/modprobe.d /run/modprobe.d /usr/local/lib/modprobe.d /usr/lib/modprobe.d /lib/modprobe.d; do
  [ "$folder" = /lib/modprobe.d ] && [ /lib -ef /usr/lib ] && continue
  for path in "$folder"/*.conf; do
    [ -f "$path" ] || continue
    part "config $path"
    [ -r "$path" ] || continue
    body=
    while IFS= read -r line || [ -n "$line" ]; do body="$body $line$newline"; done < "$path"
    case $body in *kvm*) printf '%s' "$body" ;; esac
  done
done
part writable; [ -w /etc/modprobe.d ] && echo ' /etc/modprobe.d'

# Who holds KVM: what a VM is known by only, for the rest of its command line may hold secrets.
# shellcheck disable=SC2012 # the names in /proc are numbers
ls -l /proc/[0-9]*/fd 2>/dev/null | grep -E '^/proc/|/dev/kvm$|anon_inode:kvm-vm' | while read -r line; do
  case $line in
    /proc/*) process=${line%/fd:} ;;
    *)
      [ "$process" = "$told" ] && continue # it holds several
      told=$process
      part "user ${process#/proc/}"
      file "$process/comm"
      tr '\0' '\n' < "$process/cmdline" 2>/dev/null | grep -A 1 -xE -e '-(name|id|uuid)' | text
      ;;
  esac
done

# What the initramfs brings along: with the module in it, its own copy of modprobe.d decides.
initramfs() { # FILE PROGRAM
  part "initramfs $1"
  "$2" "$1" 2>/dev/null | grep -E 'kvm-(intel|amd)\.ko|(etc|lib)/modprobe\.d/[^/]*\.conf' | text
  find /etc/modprobe.d /usr/lib/modprobe.d -name '*.conf' -newer "$1" 2>/dev/null | sed 's/^/newer /' | text
}
for candidate in "/boot/initrd.img-$kernel lsinitramfs" "/boot/initramfs-$kernel.img lsinitrd" \
  "/boot/initrd-$kernel lsinitrd" '/boot/initramfs-linux.img lsinitcpio'; do
  # shellcheck disable=SC2086 # two words: a file and its program
  set -- $candidate
  if [ -r "$1" ] && command -v "$2" >/dev/null; then initramfs "$1" "$2"; break; fi
done
for tool in update-initramfs dracut mkinitcpio grub-mkconfig proxmox-boot-tool kernel-install bootctl; do
  command -v "$tool" >/dev/null && { part "tool $tool"; }
done
part end
