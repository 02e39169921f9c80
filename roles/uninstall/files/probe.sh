#!/bin/sh
# Prints the objects of the product on this host, one per line: "container NAME", "network NAME", "image NAME", "file PATH".
# Arguments: the directory of the Compose project, then paths to look for. Reads only.
set -eu
directory=$1
shift
# Without an engine there are no containers.
if command -v docker >/dev/null && docker version >/dev/null 2>&1; then
  # Another project may have the same name, so the directory is compared.
  docker ps --all --filter label=com.docker.compose.project=occupancy \
    --filter "label=com.docker.compose.project.working_dir=$directory" --format 'container {{.Names}}'
  others=$(docker ps --all --filter label=com.docker.compose.project=occupancy --format '{{.Label "com.docker.compose.project.working_dir"}}' \
    | grep -vxc "$directory" || true)
  if [ "$others" = 0 ]; then
    docker network ls --filter label=com.docker.compose.project=occupancy --format 'network {{.Name}}'
  fi
  docker image ls --filter reference=occupancy-ops --filter reference=occupancy-postgres --format 'image {{.Repository}}:{{.Tag}}'
fi
for path; do
  if [ -e "$path" ] || [ -L "$path" ]; then echo "file $path"; fi
done
