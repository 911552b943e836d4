#!/bin/sh
# Removes from a node what kata-deploy put there, and says what is left: run in a pod with the node's / at /host.
#   clean.sh look      changes nothing
#   clean.sh clean     removes; the runtime is not restarted yet
#   clean.sh restart   restarts the container runtime, if something was removed from its configuration
# Each line of its answer is NAME=VALUE: removed, kept (not Kata's, or not for certain), left, missing (containerd's
# directory is not there), restart, restarted, failed, end.
#   NESTVIRT_HOST        the node's / (/host)
#   NESTVIRT_CONTAINERD  containerd's directory on the node
#   NESTVIRT_GENERATED   the file there that the distribution writes anew at each start; empty where there is none
#   NESTVIRT_UNITS       systemd's units that run containerd, the likeliest first; empty where it reads by itself
exec 2> /dev/null
host=${NESTVIRT_HOST:-/host}
LC_ALL=C
export LC_ALL
umask 077

say() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\t' '  ' | tr -cd ' -~' | cut -c 1-300)"; }
shown() { printf '%s' "${1#"$host"}"; }

# Where a path of the node is, seen from here: each link on the way leads on from the node's own /.
in_host() {
  todo=$1 path='' hops=0
  while [ -n "$todo" ]; do
    part=${todo%%/*}
    case $todo in */*) todo=${todo#*/} ;; *) todo='' ;; esac
    case $part in
      '' | .) continue ;;
      ..) path=${path%/*}; continue ;;
    esac
    if [ -L "$host$path/$part" ] && [ "$hops" -lt 40 ]; then
      hops=$((hops + 1))
      part=$(readlink "$host$path/$part")
      case $part in /*) path='' ;; esac
      todo=$part/$todo
    else path=$path/$part
    fi
  done
  printf '%s' "$host$path"
}

config=$(in_host "${NESTVIRT_CONTAINERD:-/etc/containerd}")
owed=$(in_host /run)/nestvirt-kata-restart # lasts as long as the running containerd at most
kata=$(in_host /opt)/kata
bin=$(in_host /usr/local/bin)
crio=$(in_host /etc/crio/crio.conf.d)

# A TOML file without what kata-deploy writes into one: the tables of runtimes whose files are below /opt/kata, and
# its drop-in among the imports. Ends with 0 where there was something of it, with 3 where there was not. Given a
# second word it prints nothing, and ends with 0 where /opt/kata/ is still in what is left, outside of comments.
without_kata() {
  awk -v q="'" -v probe="${2:-}" '
    # A line without its comment; keeps count of the brackets and long strings that it leaves open.
    function code(line,   i, c, three, quote, out) {
      for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        three = substr(line, i, 3)
        if (open != "") {
          if (three == open) { out = out substr(open, 2); i += 2; open = "" }
        } else if (quote != "") {
          if (c == "\\" && quote == "\"") { out = out c; i++; c = substr(line, i, 1) }
          else if (c == quote) quote = ""
        } else if (three == "\"\"\"" || three == q q q) { open = three; out = out substr(open, 2); i += 2 }
        else if (c == "\"" || c == q) quote = c
        else if (c == "#") break
        else if (c == "[") depth++
        else if (c == "]" && depth) depth--
        out = out c
      }
      return out
    }
    # What a line has beside the directives of a template.
    function bare(line,   from, to) {
      while ((from = index(line, "{{")) && (to = index(substr(line, from), "}}")))
        line = substr(line, 1, from - 1) substr(line, from + to + 1)
      return line
    }
    # The runtime of Kata that a header is about.
    function handler(header,   name) {
      if (!match(header, /\.(runtimes|runtime_platforms)\./)) return ""
      name = substr(header, RSTART + RLENGTH)
      gsub("[ \t\"" q "]", "", name)
      sub(/[].].*/, "", name)
      return name ~ /^kata(-|$)/ ? name : ""
    }
    function emit(text, plain) {
      if (!probe) printf "%s", text
      else if (index(plain, "/opt/kata/")) rest = 1
    }
    # Comments stay, wherever they are; empty lines go with what they precede.
    function emit_comments() { if (noted) emit(substr(gap, 1, noted), ""); gap = ""; noted = 0 }
    function emit_gap() { emit(gap, ""); gap = ""; noted = 0 }
    # The list of imports without kata-deploy.toml, with one comma less.
    function emit_imports(   i, c, quote, from, word, out, comma, eat, plain) {
      for (i = 1; i <= length(list); i++) {
        c = substr(list, i, 1)
        if (c ~ /[ \t\r\n]/) { if (eat != 1 && eat != 3) out = out c; continue }
        if (c == "#") {
          while (c != "\n" && i <= length(list)) { out = out c; c = substr(list, ++i, 1) }
          out = out c
          comma = 0
          if (eat) eat = 2
          continue
        }
        if (c == "," && eat && eat < 3) { eat = eat == 1 ? 3 : 0; continue }
        eat = 0
        if (c != "\"" && c != q) {
          comma = c == "," ? length(out) + 1 : 0
          out = out c
          continue
        }
        quote = c
        from = i
        while (++i <= length(list) && (c = substr(list, i, 1)) != quote) if (c == "\\" && quote == "\"") i++
        word = substr(list, from + 1, i - from - 1)
        if (word == "/opt/kata/containerd/config.d/kata-deploy.toml") {
          changed = 1
          if (comma) out = substr(out, 1, comma - 1)
          else eat = 1
        } else { out = out quote word quote; plain = plain word "\n" }
        comma = 0
      }
      if (out == list || out !~ /=[ \t\r\n]*\[[ \t\r\n]*\][ \t\r\n]*$/) { emit_gap(); emit(out, plain) }
      list = ""
    }
    FNR == 1 { depth = 0; open = current = "" }
    {
      inside = depth > 0 || open != ""
      directive = !inside && $0 ~ /^[ \t]*[{][{]/ && bare($0) ~ /^[ \t\r]*$/
      text = directive ? "" : code($0)
      header = !inside && text ~ /^[ \t]*\[/
      if (header) { depth = 0; headed = NR > FNR; current = handler(text) }
    }
    NR == FNR { if (!header && current != "" && index(text, "/opt/kata/")) ours[current] = 1; next }
    list != "" || (!headed && !inside && text ~ /^[ \t]*imports[ \t]*=/) {
      list = list $0 "\n"
      if (depth == 0 && open == "") emit_imports()
      next
    }
    header {
      dropping = current in ours
      if (dropping) { changed = 1; emit_comments() } else { emit_gap(); emit($0 "\n", text) }
      next
    }
    directive {
      emit_gap()
      emit($0 "\n", "")
      if ($0 ~ /[{][{]-?[ \t]*(template|block)/) dropping = 0 # whose tables come then is not known
      next
    }
    !inside && text ~ /^[ \t\r]*$/ { gap = gap $0 "\n"; if ($0 ~ /#/) noted = length(gap); next }
    dropping { gap = ""; noted = 0; next }
    { emit_gap(); emit($0 "\n", text) }
    END {
      if (list != "") emit(list, list)
      if (dropping) emit_comments(); else emit_gap()
      exit (probe ? rest : changed) ? 0 : 3
    }
  ' "$1" "$1"
}

essential() { without_kata "$1" | grep -v '^[[:space:]]*$'; }

# Whether the runtime would be told the same without a template. kata-deploy begins one as the distribution's
# own, or as a copy of the generated file, whose first line says that it is that.
is_spare() {
  left=$(essential "$1")
  generated=$(in_host "${NESTVIRT_CONTAINERD:-/etc/containerd}/${NESTVIRT_GENERATED:-}")
  case $left in
    '' | '{{ template "base" . }}') return 0 ;;
    '# File generated by'*) [ -f "$generated" ] && [ "$left" = "$(essential "$generated")" ] ;;
    *) return 1 ;;
  esac
}

# The runtime that has read the file goes on with what it read: say so before anything is changed.
owe() { : > "$owed"; }

clean_config() { # NAME
  real=$(in_host "$(shown "$config/$1")") # what a link leads to is written, and the link stays
  without_kata "$real" > "$real.nestvirt"
  case $? in
    0)
      owe
      if [ "$1" != "${1%.tmpl}" ] && [ ! -L "$config/$1" ] && is_spare "$real"; then
        rm -f "$real" && say removed "$(shown "$real")"
      elif cp -p "$real" "$real.nestvirt2" && cat "$real.nestvirt" > "$real.nestvirt2" \
        && mv "$real.nestvirt2" "$real"; then
        say removed "Kata's runtimes from $(shown "$real")"
        [ "$1" = "${1%.tmpl}" ] || say kept "$(shown "$real")"
      else say failed "$(shown "$real") cannot be written"
      fi ;;
    3) ;;
    *) say failed "$(shown "$real") cannot be read" ;;
  esac
  rm -f "$real.nestvirt" "$real.nestvirt2"
  bak=$config/$1.bak # kata-deploy keeps a copy of what it changes in place
  if [ -f "$bak" ] && [ ! -L "$bak" ]; then
    if { [ -f "$real" ] && [ "$(essential "$bak")" = "$(essential "$real")" ]; } \
      || { [ ! -e "$real" ] && is_spare "$bak"; }; then
      rm -f "$bak" && say removed "$(shown "$bak")"
    else say kept "$(shown "$bak")"
    fi
  fi
}

configs() {
  for name in config.toml config.toml.tmpl config-v3.toml.tmpl containerd.toml containerd-template.toml; do
    if [ "$name" != "${NESTVIRT_GENERATED:-}" ] && [ -f "$(in_host "$(shown "$config/$name")")" ]; then
      printf '%s\n' "$name"
    fi
  done
}
drop_ins() {
  for path in "$config"/containerd.d/kata-deploy.toml "$config"/containerd.d/kata-containers.toml \
    "$config"/conf.d/kata-deploy.toml "$config"/config*.toml.d/kata-deploy.toml "$crio/99-kata-deploy"; do
    if [ -f "$path" ]; then printf '%s\n' "$path"; fi
  done
}
# Shims of Kata's in the PATH: links below /opt/kata, or scripts that start what is there.
shims() {
  for path in "$bin"/containerd-shim-kata*; do
    if [ -L "$path" ]; then case $(readlink "$path") in /opt/kata/*) printf '%s\n' "$path" ;; esac
    elif [ -f "$path" ] && grep -q /opt/kata/ "$path"; then printf '%s\n' "$path"
    fi
  done
}

clean() {
  configs | while read -r name; do clean_config "$name"; done
  drop_ins | while read -r path; do owe; rm -f "$path" && say removed "$(shown "$path")"; done
  shims | while read -r path; do rm -f "$path" && say removed "$(shown "$path")"; done
  if [ -L "$kata" ]; then # somebody's own: what it leads to may hold anything
    say kept "$(readlink "$kata"), to which /opt/kata led"
    rm -f "$kata" && say removed /opt/kata
  elif [ -e "$kata" ]; then
    rm -rf "$kata"
    [ -e "$kata" ] || say removed /opt/kata
  fi
}

look() {
  [ -d "$config" ] || say missing "${NESTVIRT_CONTAINERD:-/etc/containerd}"
  configs | while read -r name; do
    real=$(in_host "$(shown "$config/$name")")
    without_kata "$real" > /dev/null
    case $? in
      0) say left "Kata's runtimes in $(shown "$real")" ;;
      3) ;;
      *) say left "what may be in $(shown "$real"), which cannot be read" ;;
    esac
    if without_kata "$real" probe; then say left "a line with /opt/kata/ in $(shown "$real")"; fi
  done
  drop_ins | while read -r path; do say left "$(shown "$path")"; done
  shims | while read -r path; do say left "$(shown "$path")"; done
  if [ -e "$kata" ] || [ -L "$kata" ]; then say left /opt/kata; fi
  if [ -e "$owed" ]; then say restart owed; fi
}

on_node() { nsenter -t 1 -m -- "$@"; }

restart() {
  [ -e "$owed" ] || return 0
  for unit in ${NESTVIRT_UNITS:-}; do
    on_node systemctl is-active --quiet "$unit" || continue
    if on_node systemctl restart "$unit"; then rm -f "$owed"; say restarted "$unit"
    else say failed "systemctl restart $unit"
    fi
    return 0
  done
  if [ -z "${NESTVIRT_UNITS:-}" ]; then rm -f "$owed"; return 0; fi
  say failed "none of these is active: $NESTVIRT_UNITS"
}

case ${1:-look} in
  clean) clean ;;
  restart) restart ;;
esac
look
say end yes
