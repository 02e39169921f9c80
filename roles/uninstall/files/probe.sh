#!/bin/sh
# Prints the objects of the product on this host, one per line: "container NAME", "network NAME", "image NAME", "account NAME",
# "file PATH".
# Arguments: the directory and the name of the Compose project, then paths to look for. Reads only.
set -eu
directory=$1 project=$2
shift 2
# Without an engine there are no containers.
if command -v docker >/dev/null && docker version >/dev/null 2>&1; then
  # Another project may have the same name, so the directory is compared. Earlier releases had another name.
  ours="label=com.docker.compose.project.working_dir=$directory"
  docker ps --all --filter "$ours" --format 'container {{.Names}}'
  names=$(docker ps --all --filter "$ours" --format '{{.Label "com.docker.compose.project"}}')
  for name in $(printf '%s\n' "$project" "$names" | sort -u); do
    others=$(docker ps --all --filter "label=com.docker.compose.project=$name" \
      --format '{{.Label "com.docker.compose.project.working_dir"}}' | grep -vxc "$directory" || true)
    if [ "$others" = 0 ]; then
      docker network ls --filter "label=com.docker.compose.project=$name" --format 'network {{.Name}}'
    fi
  done
  # The exporters are a project of their own.
  docker ps --all --filter "$ours/monitoring" --format 'container {{.Names}}'
  docker network ls --filter label=com.docker.compose.project=occupancy-monitoring --format 'network {{.Name}}'
  docker image ls --filter reference=occupancy-ops --filter reference=occupancy-postgres --format 'image {{.Repository}}:{{.Tag}}'
fi
# The accounts of role occupancy
for account in occupancy-server occupancy-tools; do
  if getent passwd "$account" | grep -q ':/nonexistent:/usr/sbin/nologin$'; then echo "account $account"; fi
done
for path; do
  if [ -e "$path" ] || [ -L "$path" ]; then echo "file $path"; fi
done
