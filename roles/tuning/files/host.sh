#!/bin/sh
# How the kernel stands to the settings wanted of it: arguments are name=value. One line for each: "set", "differs" or
# "skipped", the name, and why it is skipped. Reads only.
set -eu

# A container shares its kernel with others, even where it is allowed to write to it. On anything else the question is
# answered with "none" and a failure.
container=""
if command -v systemd-detect-virt >/dev/null; then container=$(systemd-detect-virt --container || true); fi
if [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then container=${container:-docker}; fi

for wanted in "$@"; do
  name=${wanted%%=*}
  path=/proc/sys/$(printf '%s' "$name" | tr . /)
  if [ -n "$container" ] && [ "$container" != none ]; then
    echo "skipped $name: the host is a container ($container)"
  elif [ ! -e "$path" ]; then
    echo "skipped $name: this kernel does not have it"
  elif [ ! -w "$path" ]; then
    echo "skipped $name: /proc/sys is read-only here"
  elif [ "$(tr '\t' ' ' <"$path")" = "${wanted#*=}" ]; then
    echo "set $name"
  elif [ "$name" = vm.nr_hugepages ] && [ "$(cat "$path")" -ge "${wanted#*=}" ]; then
    echo "set $name" # others may need some, too
  else
    echo "differs $name"
  fi
done
