#!/bin/sh
# What a node says of itself before Kata is installed on it: run in a pod that sees the node's / at /host.
# It changes nothing and loads nothing. Each line of its answer is NAME=VALUE; "probe" is the probe's JSON.
#   NESTVIRT_HOST        the node's / (/host)
#   NESTVIRT_FILES       where probe.py and reading.sh are (/nestvirt)
#   NESTVIRT_CONTAINERD  containerd's directory on the node
#   NESTVIRT_CTR         the words that run ctr there; empty where its snapshotters do not matter
exec 2> /dev/null
host=${NESTVIRT_HOST:-/host}
files=${NESTVIRT_FILES:-/nestvirt}
config=$host${NESTVIRT_CONTAINERD:-/etc/containerd}
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
LC_ALL=C
export PATH LC_ALL
set -f

# say NAME VALUE: one line of printable text, bounded.
say() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\t' '  ' | tr -cd ' -~' | cut -c 1-300)"; }

# ask HOW PYTHON...: let a Python run the probe, unless one has answered already.
answer=
ask() {
  [ -z "$answer" ] || return 0
  how=$1
  shift
  answer=$("$@" -I - < "$files/probe.py" | tr -d '\n')
  case $answer in '{'*'}') ;; *) answer= ;; esac
}
# The node's own Python sees the node's files and devices as they are.
ask node chroot "$host" python3
ask node chroot "$host" /usr/libexec/platform-python
if [ -z "$answer" ] && command -v python3 > /dev/null; then
  # A privileged pod has the node's devices, and not its modules.
  if [ "$host" = /host ]; then # this is such a pod
    [ -e /dev/kvm ] || [ ! -e /host/dev/kvm ] || ln -s /host/dev/kvm /dev/kvm
    [ -e /lib/modules ] || ln -s /host/lib/modules /lib/modules
  fi
  ask image python3
fi
if [ -z "$answer" ]; then # this runs nothing, and proves nothing
  how=files answer=$(NESTVIRT_ROOT=$host sh "$files/reading.sh" | tr -d '\n')
fi
say how "$how"
printf 'probe=%s\n' "$answer"

kernel=$(uname -r)
say arch "$(uname -m)"
say kernel "$kernel"
[ ! -r "$host/sys/fs/selinux/enforce" ] || say selinux "$(cat "$host/sys/fs/selinux/enforce")"

found=
for name in vhost-net vhost-vsock; do [ ! -e "$host/dev/$name" ] || found="$found $name"; done
say devices "$found"
found=
for name in vhost vhost_net vhost_vsock vsock vmw_vsock_vmci_transport; do
  [ ! -d "$host/sys/module/$name" ] || found="$found $name"
done
say modules "$found"
found=
for folder in /lib/modules /usr/lib/modules; do
  index=$host$folder/$kernel
  [ -r "$index/modules.dep" ] || [ -r "$index/modules.builtin" ] || continue
  found=index
  for name in vhost_net vhost_vsock; do
    if cat "$index/modules.dep" "$index/modules.builtin" | tr - _ | grep -q "/$name\.ko"; then found="$found $name"; fi
  done
  break
done
say loadable "$found"

[ ! -d "$config" ] || say directory yes
for name in config.toml config.toml.tmpl config-v3.toml.tmpl; do
  [ -f "$config/$name" ] || continue
  say "version-$name" "$(sed -n 's/^ *version *= *\([0-9]*\).*/\1/p' "$config/$name" | head -n 1)"
  say "imports-$name" "$(sed -n '/^ *imports *=/,/\]/p' "$config/$name")"
done

folder=$host/opt
[ -d "$folder" ] || folder=$host
say free "$(df -P -k "$folder" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)"

if [ -n "${NESTVIRT_CTR:-}" ]; then
  # TYPE, ID, PLATFORMS and STATUS of each plugin.
  say snapshotter "$(chroot "$host" $NESTVIRT_CTR plugins ls | tr -s ' \t' ' ' | grep ' devmapper ' | sed 's/.* //')"
  say plugins "$(chroot "$host" $NESTVIRT_CTR plugins ls | grep -c snapshotter)"
fi
say end yes
