#!/bin/sh
# What preflight wants to know of a host, as one JSON object. Reads only.
# Arguments by environment: DATA_DIR, PORT, PACKAGES, DIRECTORIES (one a line) and MARKER.
set -eu

existing=$DATA_DIR
while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done

version=""
if [ -e "$DATA_DIR/pgdata/PG_VERSION" ]; then
  version=$(cat "$DATA_DIR/pgdata/PG_VERSION")
elif [ -d "$DATA_DIR/pgdata" ] && [ -n "$(ls -A "$DATA_DIR/pgdata")" ]; then
  version="none, but the directory is not empty"
fi

listeners="" owner="" ours=false
if command -v ss >/dev/null; then
  listeners=$(ss -Hltnp "sport = :$PORT" | awk '{print $4, $6}' | tr -d '"' | tr '\n' ';')
else
  listeners="unknown"
fi
# A client without an engine behind it has no containers: no answer is the answer.
if command -v docker >/dev/null; then
  owner=$(docker ps --filter "publish=$PORT" --format '{{.Names}}' 2>/dev/null | tr '\n' ' ' || true)
  if docker ps --filter "publish=$PORT" --filter label=com.docker.compose.project=occupancy --quiet 2>/dev/null | grep -q .; then
    ours=true
  fi
fi

# Which image the tools run from, until the migrations role hands over to another, which release was brought last, and the server's.
ops_image="" release_image="" postgres_image=""
if [ -e "$(dirname "$MARKER")/.env" ]; then
  ops_image=$(sed -n 's/^OCCUPANCY_OPS_IMAGE=//p' "$(dirname "$MARKER")/.env")
  release_image=$(sed -n 's/^OCCUPANCY_RELEASE_IMAGE=//p' "$(dirname "$MARKER")/.env")
  postgres_image=$(sed -n 's/^OCCUPANCY_POSTGRES_IMAGE=//p' "$(dirname "$MARKER")/.env")
fi

initialised=false
if [ -e "$MARKER" ]; then initialised=true; fi

missing=""
for package in $PACKAGES; do
  dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done

present=$(printf '%s\n' "$DIRECTORIES" | while read -r path; do
  if [ -d "$path" ]; then stat --format='"%n %u %a",' "$path"; fi
done)

# What the data are on: a partition's disk is the directory above it. An overlay has none.
block=$(readlink -f "/sys/dev/block/$(findmnt --noheadings --first-only --output MAJ:MIN --target "$existing" | tr -d ' ')")
rotational=$(cat "$block/queue/rotational" "$block/../queue/rotational" 2>/dev/null | head -n 1)

printf '{"memory_mb": %s, "cores": %s, "device": "%s", "rotational": %s, "disk_mb": %s, "free_mb": %s, "cluster_version": "%s", "initialised": %s, "ops_image": "%s", "release_image": "%s", "postgres_image": "%s", "listeners": "%s", "containers": "%s", "ours": %s, "missing": "%s", "directories": [%s]}\n' \
  "$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)" \
  "$(nproc)" "$(basename "$block")" "${rotational:-0}" \
  "$(df --output=size -BM "$existing" | tail -n 1 | tr -dc 0-9)" \
  "$(df --output=avail -BM "$existing" | tail -n 1 | tr -dc 0-9)" \
  "$version" "$initialised" "$ops_image" "$release_image" "$postgres_image" "$listeners" "$owner" "$ours" "$missing" "$(printf "%s" "$present" | tr '\n' ' ' | sed 's/, *$//')"
