#!/bin/bash
# Replaces Debian's packages of the engine by packages that are named like Docker's, hold the same programs and conflict with Debian's
# as Docker's do. There is no package with buildx.
set -euo pipefail
directory=$(mktemp -d)
repack() { # Debian's package, Docker's name, what it depends on
  local old=$1 new=$2 depends=$3 root=$directory/$2
  mkdir -p "$root/DEBIAN"
  dpkg-query --listfiles "$old" | while read -r path; do
    if [ ! -d "$path" ]; then printf '%s\n' "${path#/}"; fi
  done >"$directory/files"
  tar --create --directory / --files-from "$directory/files" | tar --extract --directory "$root"
  cat >"$root/DEBIAN/control" <<EOF
Package: $new
Version: 5:28.0.0-1~test
Architecture: $(dpkg --print-architecture)
Maintainer: Test <test@example.com>
${depends:+Depends: $depends}
Conflicts: $old
Description: Stands for a package of Docker
EOF
  sed -i '/^$/d' "$root/DEBIAN/control"
  dpkg-deb --build --root-owner-group -Znone "$root" "$directory/$new.deb" >/dev/null
}
repack runc docker-runc ''
repack containerd containerd.io docker-runc
repack docker.io docker-ce containerd.io
repack docker-compose docker-compose-plugin docker-ce
systemctl stop docker.service docker.socket containerd.service
dpkg --remove --force-depends docker-buildx docker-compose docker.io containerd runc
# As an earlier release left them
: >/etc/apt/sources.list.d/occupancy-trixie.sources
: >/etc/apt/preferences.d/occupancy-trixie.pref
dpkg --install "$directory"/*.deb
rm -rf "$directory"
systemctl daemon-reload
systemctl enable --now containerd.service docker.socket docker.service
