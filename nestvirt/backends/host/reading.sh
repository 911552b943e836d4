# What decides about nesting on this host, read and nothing changed. POSIX sh; root sees most, others what they may.
# Output: "@ PART" begins a part; each line of it follows after a space. One machine's words, not to be trusted.
LC_ALL=C
export LC_ALL
kernel=$(uname -r)
PATH=$PATH:/sbin:/usr/sbin

# The shell's own commands where they will do: a program costs more, on a host that may be busy.
part() { printf '@ %s\n' "$1"; }
text() { while IFS= read -r line || [ -n "$line" ]; do printf ' %s\n' "$line"; done; }
file() { [ -r "$1" ] && text < "$1"; }

part hostname; uname -n | text
part id; file /etc/machine-id
part machine; uname -m | text
part kernel; echo " $kernel"
part cpu; sed -n '1,/^$/p' /proc/cpuinfo | grep -E '^(vendor_id|model name|flags)' | text
part cmdline; file /proc/cmdline
part sources # of the command line, where they name the parameter
grep -nHE 'kvm[-_](intel|amd)[.]nested' /etc/default/grub /etc/default/grub.d/*.cfg /etc/kernel/cmdline \
  /boot/loader/entries/*.conf 2>/dev/null | cut -d: -f1,2 | text
part said; dmesg 2>/dev/null | grep -iE 'kvm' | tail -n 3 | text
part modules; grep -E '^(kvm|kvm_intel|kvm_amd|vboxdrv|vmmon|xen_evtchn) ' /proc/modules 2>/dev/null | text

# A kernel with both modules built in has both folders, whatever the CPU.
case $(grep -m 1 '^vendor_id' /proc/cpuinfo) in *Intel*) module=kvm_intel ;; *) module=kvm_amd ;; esac
for name in nested ept npt; do
  path=/sys/module/$module/parameters/$name
  [ -r "$path" ] && { part "parameter $path"; file "$path"; }
done
part "file $module"; modinfo -F filename "$module" 2>/dev/null | text
part type; modinfo -F parm "$module" 2>/dev/null | grep '^nested:' | text
part loading; modprobe --show-depends "$module" 2>&1 < /dev/null | head -n 20 | text

# Every file that modprobe looks at, so that one can be seen to hide another of the same name. The text only of
# those that speak of kvm.
newline='
'
for folder in /etc/modprobe.d /run/modprobe.d /usr/local/lib/modprobe.d /usr/lib/modprobe.d /lib/modprobe.d; do
  [ "$folder" = /lib/modprobe.d ] && [ /lib -ef /usr/lib ] && continue
  for path in "$folder"/*.conf; do
    [ -e "$path" ] || [ -L "$path" ] || continue # a link to /dev/null masks a file of that name
    part "config $path"
    [ -r "$path" ] || continue
    body=
    while IFS= read -r line || [ -n "$line" ]; do body="$body $line$newline"; done < "$path"
    case $body in *kvm*) printf '%s' "$body" ;; esac
  done
done
part writable; [ -w /etc/modprobe.d ] && echo ' /etc/modprobe.d'

# The VMs of those who manage VMs, as their own files in /run have them: only root writes there.
for pid in /run/libvirt/qemu/*.pid; do
  [ -r "$pid" ] || continue
  name=${pid##*/}
  part "libvirt ${name%.pid}"; file "$pid"
  grep -m 1 -oE '<uuid>[0-9a-f-]{36}</uuid>' "${pid%.pid}.xml" 2>/dev/null | text
done
for pid in /run/qemu-server/*.pid; do
  [ -r "$pid" ] || continue
  name=${pid##*/}
  part "proxmox ${name%.pid}"; file "$pid"
done

# Who holds KVM. Where a descriptor leads is up to the process that holds it, so that is compared and not printed;
# of its command line its own name for the VM alone, for the rest may hold secrets.
holders() {
  if find /proc/self/fd -lname none > /dev/null 2>&1; then
    find /proc/[0-9]*/fd '(' -lname /dev/kvm -o -lname anon_inode:kvm-vm ')' 2> /dev/null
  else
    for process in /proc/[0-9]*; do # busybox' find
      ls -ln "$process/fd" 2> /dev/null | grep -qE ' -> (/dev/kvm|anon_inode:kvm-vm)$' && echo "$process/fd/x"
    done
  fi
}
holders | cut -d/ -f3 | uniq | head -n 500 | while read -r pid; do
  part "user $pid"
  file "/proc/$pid/comm"
  tr '\0' '\n' < "/proc/$pid/cmdline" 2> /dev/null | grep -m 1 -A 1 -x -e -name | cut -c 1-200 | head -n 2 | text
done

# What the initramfs brings along: with the module in it, its own copy of modprobe.d decides.
initramfs() { # FILE PROGRAM: whether that program can list it
  listed=$("$2" "$1" 2> /dev/null < /dev/null |
    grep -E 'kvm-(intel|amd)\.ko|(etc|lib)/modprobe\.d/[^/]*\.conf|(^|/)(bin|init)$')
  [ -n "$listed" ] || return 1
  part "initramfs $1"
  printf '%s\n' "$listed" | text
  find /etc/modprobe.d /usr/lib/modprobe.d -name '*.conf' -newer "$1" 2> /dev/null | sed 's/^/newer /' | text
}
look() { # the first image that is there, with the first program that can list it
  read -r machine < /etc/machine-id
  read -r base < "/usr/lib/modules/$kernel/pkgbase"
  for image in "/boot/initrd.img-$kernel" "/boot/initramfs-$kernel.img" "/boot/initrd-$kernel" \
    "/boot/$machine/$kernel/initrd" "/efi/$machine/$kernel/initrd" "/boot/initramfs-$base.img"; do
    [ -r "$image" ] || continue
    for program in lsinitramfs lsinitrd lsinitcpio; do
      command -v "$program" > /dev/null && initramfs "$image" "$program" && return
    done
  done
}
look 2> /dev/null
for tool in update-initramfs dracut mkinitcpio grub-mkconfig proxmox-boot-tool kernel-install bootctl; do
  command -v "$tool" >/dev/null && { part "tool $tool"; }
done
part end
