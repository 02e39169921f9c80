#!/usr/bin/env bash
# fetch DIRECTORY PACKAGE…: put the program of each Debian package into the directory. The packages are not installed: they would start
# services on all addresses, and take those over that somebody else has configured.
set -euo pipefail
directory=$1
shift
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
# Only root enters the directory, and apt downloads as another user where it can.
apt-get -o APT::Sandbox::User=root download --quiet "$@" || {
  apt-get update --quiet
  apt-get -o APT::Sandbox::User=root download --quiet "$@"
}
for package; do
  dpkg-deb --extract "$package"_*.deb content
  install --mode 755 "content/usr/bin/$package" "$directory/$package.new"
  mv "$directory/$package.new" "$directory/$package"
done
