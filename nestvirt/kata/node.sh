#!/bin/sh
# Shows what of Kata is on a node, whose / is at $NESTVIRT_HOST. It changes nothing.
#   NESTVIRT_SHIMS       the shims that should be there
#   NESTVIRT_PREFIX      where Kata is on the node (/opt/kata)
#   NESTVIRT_CONTAINERD  containerd's directories on the node
#   NESTVIRT_SINCE       seconds; then the files are shown with their comments, and the runtime's logs as well
# Lines: "device NAME KIND", "fact NAME VALUE", "have x|f PATH", "lack PATH"; "file PATH" or "log NAME", then each
# of its lines behind "|". So a file's own words are never taken for ours.
exec 2> /dev/null
host=${NESTVIRT_HOST:-/host}
prefix=${NESTVIRT_PREFIX:-/opt/kata}
LC_ALL=C
export LC_ALL

# real PATH: the node's path as it is seen from here, past links to absolute paths.
real() {
  path=$1 hops=0
  while [ -L "$host$path" ] && [ $hops -lt 8 ]; do
    target=$(readlink "$host$path")
    case $target in /*) path=$target ;; *) path=${path%/*}/$target ;; esac
    hops=$((hops + 1))
  done
  printf '%s' "$host$path"
}

bare() {
  if [ -n "${NESTVIRT_SINCE:-}" ]; then cat; else sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d'; fi
}

# Our output is a pod's log, which others may read or collect: a registry's credentials do not get there.
mask() {
  sed -e '/BEGIN [A-Z ]*PRIVATE KEY/,/END [A-Z ]*PRIVATE KEY/s/.*/(redacted)/' \
    -e 's/^\([^=#]*[Pp][Aa][Ss][Ss][A-Za-z_]*"*[[:space:]]*=[[:space:]]*\).*/\1"(redacted)"/' \
    -e 's/^\([^=#]*[Tt]oken[A-Za-z_]*"*[[:space:]]*=[[:space:]]*\).*/\1"(redacted)"/' \
    -e 's/^\([^=#]*[Ss]ecret[A-Za-z_]*"*[[:space:]]*=[[:space:]]*\).*/\1"(redacted)"/' \
    -e 's/^\([[:space:]]*"*[Aa]uth[a-z]*"*[[:space:]]*=[[:space:]]*\).*/\1"(redacted)"/' \
    -e 's/\(Basic\|Bearer\) [A-Za-z0-9._~+/=-]*/\1 (redacted)/g' \
    -e 's#://[^/@[:space:]"]*@#://(redacted)@#g'
}

show() {
  seen=$(real "$1")
  [ -f "$seen" ] || return 0
  printf 'file %s\n' "$1"
  # The newline is for a file that ends without one.
  { head -c 65536 "$seen"; echo; } | bare | mask | sed -e 's/^/|/'
}

look() {
  seen=$(real "$1")
  if [ -f "$seen" ] && [ -x "$seen" ]; then
    printf 'have x %s\n' "$1"
  elif [ -e "$seen" ]; then
    printf 'have f %s\n' "$1"
  else
    printf 'lack %s\n' "$1"
  fi
}

echo nestvirt-node 1
for name in kvm vhost-net vhost-vsock; do
  kind=missing
  [ ! -e "$host/dev/$name" ] || kind=other
  [ ! -c "$host/dev/$name" ] || kind=device
  echo "device $name $kind"
done
enforce=$(head -c 1 "$host/sys/fs/selinux/enforce")
echo "fact selinux ${enforce:-absent}"
for name in vhost_vsock vmw_vsock_vmci_transport; do
  [ ! -d "$host/sys/module/$name" ] || echo "fact $name loaded"
done

[ -d "$(real "$prefix")" ] || echo "lack $prefix"
for path in "$host$prefix"/bin/* "$host$prefix"/libexec/* "$host$prefix"/runtime-rs/bin/*; do
  [ ! -e "$path" ] || look "${path#"$host"}"
done

defaults=$prefix/share/defaults/kata-containers
for shim in ${NESTVIRT_SHIMS:-}; do
  find "$host$defaults" -name "configuration-$shim.toml" | head -n 5 | while read -r path; do
    path=${path#"$host"}
    show "$path"
    for piece in "$host${path%/*}"/config.d/*.toml; do show "${piece#"$host"}"; done
    sed -n -e 's/^[[:space:]]*path[[:space:]]*=[[:space:]]*"\(\/[^"]*\)".*/\1/p' \
      -e 's/^[[:space:]]*kernel[[:space:]]*=[[:space:]]*"\(\/[^"]*\)".*/\1/p' \
      -e 's/^[[:space:]]*image[[:space:]]*=[[:space:]]*"\(\/[^"]*\)".*/\1/p' \
      -e 's/^[[:space:]]*initrd[[:space:]]*=[[:space:]]*"\(\/[^"]*\)".*/\1/p' \
      -e 's/^[[:space:]]*virtio_fs_daemon[[:space:]]*=[[:space:]]*"\(\/[^"]*\)".*/\1/p' \
      "$(real "$path")" | while read -r named; do look "$named"; done
  done
done

for folder in ${NESTVIRT_CONTAINERD:-/etc/containerd} /etc/crio/crio.conf.d "$prefix/containerd/config.d"; do
  for path in "$host$folder"/*.toml "$host$folder"/*.tmpl "$host$folder"/*.d/*.toml "$host$folder"/*kata-deploy; do
    show "${path#"$host"}"
  done
done
# log NAME: standard input, its last part.
log() {
  printf 'log %s\n' "$1"
  { tail -c 200000; echo; } | mask | sed -e 's/^/|/'
}

if [ -n "${NESTVIRT_SINCE:-}" ]; then
  journal() { chroot "$host" journalctl --quiet --no-pager --output=short-iso "--since=-${NESTVIRT_SINCE}s" "$@"; }
  journal --identifier=kata | log kata
  journal -u containerd -u crio -u rke2-server -u rke2-agent -u k3s -u k3s-agent -u k0sworker -u k0scontroller \
    -u snap.microk8s.daemon-containerd -u kubelet | grep -i -e kata -e sandbox -e shim | log runtime
  journal --dmesg | grep -i -e kvm -e vhost -e vsock -e oom -e avc | log kernel
  for path in /var/lib/rancher/rke2/agent/containerd/containerd.log /var/lib/rancher/k3s/agent/containerd/containerd.log \
    /var/log/syslog /var/log/messages; do
    [ ! -f "$host$path" ] || grep -i -e kata -e sandbox -e shim "$host$path" | log "$path"
  done
  path=/var/log/audit/audit.log
  [ ! -f "$host$path" ] || grep -e 'type=AVC' "$host$path" | log "$path"
fi
echo end
