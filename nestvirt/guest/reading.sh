#!/bin/sh
# What files say about nested virtualization, for a guest without Python: sh -s < reading.sh
# Speaks the probe's JSON. It runs no guest code, so it can say "off", but never "works":
# where all looks right the verdict is unknown, with the cause not-proven.
# Exit: 1 off, 3 unknown. NESTVIRT_ROOT names the directory of a saved machine.
root=${NESTVIRT_ROOT:-}
LC_ALL=C
export LC_ALL

# Foreign text as it may stand in JSON: printable ASCII without quote and backslash, bounded.
safe() { printf '%s' "$1" | tr -cd ' !#-[]-~' | cut -c 1-300; }

# The first line of a file; empty where it cannot be read.
line_of() {
  line=
  if [ -f "$1" ] && [ -r "$1" ]; then IFS= read -r line < "$1"; fi
  printf '%s' "$line"
}

# The value of a field of the first processor.
cpu_field() {
  [ -r "$root/proc/cpuinfo" ] || return 0
  while IFS=: read -r name value; do
    case $name in "$1"*) printf '%s' "${value# }"; return 0 ;; esac
  done < "$root/proc/cpuinfo"
}

findings=
broken=
reason=
# finding CHECK STATUS EVIDENCE [CAUSE CURE]: the first one that fails gives the verdict its cause.
finding() {
  said=$(safe "$3")
  if [ "$2" = fail ] && [ -z "$broken" ]; then broken=$4 reason=$said; fi
  if [ -n "${4:-}" ]; then word="\"$4\""; else word=null; fi
  findings="$findings${findings:+, }{\"check\": \"$1\", \"status\": \"$2\", \"evidence\": \"$said\", \
\"cause\": $word, \"cure\": \"$(safe "${5:-}")\"}"
}

vendor_id=$(cpu_field vendor_id)
case $vendor_id in
  GenuineIntel) vendor=intel flag=vmx module=kvm_intel ;;
  AuthenticAMD | HygonGenuine) vendor=amd flag=svm module=kvm_amd ;;
  *) vendor=other flag=vmx module=kvm_intel ;;
esac
case $flag:" $(cpu_field flags) " in # what the CPU shows counts for more than who made it
  svm:*" svm "*) ;;
  svm:*" vmx "*) flag=vmx module=kvm_intel ;;
esac
if [ -z "$root" ]; then arch=$(uname -m) kernel=$(uname -r)
else kernel=$(line_of "$root/proc/sys/kernel/osrelease"); [ -n "$vendor_id" ] && arch=x86_64 || arch=unknown
fi
flags=" $(cpu_field flags) "

# The drivers that run, this CPU's own first. Of built-in ones /sys/module has every maker's, even of those
# that did not start: /proc/misc decides, where it can be read.
drivers() {
  listed=
  if [ -f "$root/proc/misc" ] && [ -r "$root/proc/misc" ]; then
    while read -r _ name; do
      if [ "$name" = kvm ]; then listed=yes; fi
      listed=${listed:-no}
    done < "$root/proc/misc"
    [ "$listed" != no ] || return 0
  fi
  own= others=
  for folder in "$root"/sys/module/kvm_*; do
    driver=${folder##*/}
    if [ ! -d "$folder" ]; then continue; fi
    case $driver in
      "$module") own=$module ;;
      kvm_intel | kvm_amd) [ -d "$root/sys/module/$module" ] || others="$others $driver" ;;
      *) others="$others $driver" ;;
    esac
  done
  if [ "$own$others$listed" = yes ]; then own=kvm; fi
  echo $own $others
}

# How this user gets to open /dev/kvm, of this MODE GROUP GID; nobody is sent into root's group.
admission() {
  if [ "$(id -u)" = 0 ]; then echo 'start the container with --device /dev/kvm' # nothing else keeps root out
  else
    case $3:$2:$1 in
      [1-9]*:[!0-9]*:????rw*) echo "usermod -aG $2 USER, then log in again" ;;
      *) echo 'as root: chgrp kvm /dev/kvm; chmod 660 /dev/kvm; usermod -aG kvm USER; log in again' ;;
    esac
  fi
}

judge() {
  loaded=$(drivers)
  case $flags in
    *" $flag "*) finding guest-cpu-flag pass "$flag in /proc/cpuinfo" ;;
    *) # another kind of KVM may be loaded that needs no flag
      status=fail; [ -z "$loaded" ] || status=warn
      finding guest-cpu-flag $status "no $flag in /proc/cpuinfo" no-cpu-flag \
        "give this VM $flag (nested virtualization) on its hypervisor, then power it off and on" ;;
  esac

  if [ -n "$loaded" ]; then
    finding guest-module pass "loaded: $loaded"
    nested=$(line_of "$root/sys/module/${loaded%% *}/parameters/nested")
    if [ -n "$nested" ]; then finding guest-module-params pass "nested=$nested"; fi
  elif [ -n "$broken" ]; then
    finding guest-module skip "not asked: an earlier link is broken"
  else
    finding guest-module fail "$module is not loaded" module-not-loaded "modprobe $module"
  fi

  node=$root/dev/kvm
  number=$(ls -lL "$node" 2> /dev/null | tr -s ' ' | cut -d ' ' -f 5,6)
  if [ ! -e "$node" ]; then
    if [ -n "$broken" ]; then finding guest-device skip "not asked: an earlier link is broken; no /dev/kvm"
    else finding guest-device fail "there is no /dev/kvm" device-missing "mknod -m 660 /dev/kvm c 10 232"
    fi
  elif [ ! -c "$node" ] || [ "$number" != "10, 232" ]; then
    finding guest-device fail "/dev/kvm is not character device 10:232" device-stale \
      "rm /dev/kvm && mknod -m 660 /dev/kvm c 10 232"
  else
    finding guest-device pass "/dev/kvm is character device 10:232"
    if [ -r "$node" ] && [ -w "$node" ]; then finding guest-device-access pass "/dev/kvm may be read and written"
    else
      owner=$(ls -lL "$node" | tr -s ' ' | cut -d ' ' -f 1,4) gid=$(ls -lnL "$node" | tr -s ' ' | cut -d ' ' -f 4)
      finding guest-device-access fail "/dev/kvm may not be read and written by uid $(id -u)" device-denied \
        "$(admission "${owner%% *}" "${owner#* }" "$gid")"
    fi
  fi
}

if [ "$arch" = x86_64 ]; then
  judge
  cause=not-proven why="nothing looks broken, but no guest code was run"
else
  cause=unsupported-arch why="nothing is known of this architecture: $arch"
fi
if [ -n "$broken" ]; then
  verdict=off summary="Virtual machines cannot run here: $reason"
  finding guest-kvm-run skip "not asked: an earlier link is broken"
  cause=$broken
else
  verdict=unknown summary="It was not found out whether virtual machines run here: $why"
  finding guest-kvm-run unknown "$why" "$cause" "install python3, which the probe needs to run guest code"
fi
cat << END
{"schema_version": 1, "probe": "1", "verdict": "$verdict", "cause": "$cause", "summary": "$(safe "$summary")",
"machine": {"arch": "$(safe "$arch")", "kernel": "$(safe "$kernel")", "vendor": "$vendor", "hypervisor": "unasked",
"model": "$(safe "$(cpu_field 'model name')")"}, "numbers": {}, "findings": [$findings]}
END
[ "$verdict" = off ] && exit 1
exit 3
