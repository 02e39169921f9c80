#!/bin/sh
# Prints the versions of Compose, buildx and the Docker Engine, one per line, then the images in the engine. Fails if one of
# the three is missing or does not answer. Reads only.
set -eu
docker compose version --short
docker buildx version
docker version --format '{{.Server.Version}}'
docker image ls --format '{{.Repository}}:{{.Tag}}'
