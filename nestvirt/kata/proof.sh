#!/bin/sh
# Says on what machine a pod runs: one fact a line, "NAME VALUE". It needs no rights, and no more than a
# minimal image's shell. The kernel's boot id is the kernel's own, whatever container asks for it.
exec 2> /dev/null
LC_ALL=C
export LC_ALL

# say NAME VALUE: one line of printable text, bounded.
say() { printf '%s %s\n' "$1" "$(printf '%s' "$2" | tr '\n\t\0' '   ' | tr -cd ' -~' | cut -c 1-200)"; }

echo nestvirt-proof 1
say kernel "$(uname -r)"
say boot "$(cat /proc/sys/kernel/random/boot_id)"
if grep -qw hypervisor /proc/cpuinfo; then say flag yes; else say flag no; fi
say vendor "$(cat /sys/class/dmi/id/sys_vendor)"
say product "$(cat /sys/class/dmi/id/product_name)"
# Where there is neither that flag nor DMI (arm64, ppc64le), and on s390x.
say tree "$(cat /proc/device-tree/compatible /proc/device-tree/hypervisor/compatible)"
say control "$(sed -n 's/^VM00 Control Program: *//p' /proc/sysinfo)"
case " $(cat /proc/cmdline) " in
  *" systemd.unit=kata-containers.target "* | *" agent."*) say agent yes ;;
  *) say agent no ;;
esac
echo end yes
