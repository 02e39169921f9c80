#!/bin/bash
# Builds the image that plays the official one and pushes it to the mirror; gives occupancy-ce an image and a Compose project. Run on
# the controller, in the scenario's directory.
set -euo pipefail
built=$(docker image ls --filter "reference=occupancy-postgres:16-built-*-$(dpkg --print-architecture)" --format '{{.Repository}}:{{.Tag}}' | head -n 1)
docker build --quiet --build-arg "BUILT=$built" --tag occupancy-official:16 files
docker save occupancy-official:16 | docker exec --interactive occupancy-hub docker load --quiet
mirror=10.215.16.10:5000/library/postgres:16-trixie
docker exec occupancy-hub sh -euc "docker tag occupancy-official:16 $mirror && docker push --quiet $mirror && docker rmi occupancy-official:16 $mirror"
docker exec occupancy-hub cat /etc/docker-registry/ca.crt | docker exec --interactive occupancy-pull sh -euc \
  'mkdir -p /etc/docker/certs.d/occupancy-hub:5443; cat > /etc/docker/certs.d/occupancy-hub:5443/ca.crt'
docker save "$built" | docker exec --interactive occupancy-ce docker load --quiet
docker exec --interactive occupancy-ce sh -euc 'mkdir -p /srv/occupancy; cat > /srv/occupancy/compose.yaml' <<EOF
services:
  homeassistant:
    image: $built
    command: [sleep, infinity]
    restart: unless-stopped
    init: true
EOF
