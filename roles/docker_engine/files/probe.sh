#!/bin/sh
# Prints what the host has of a Docker Engine, as name=value, then the images in the engine, each after "image=". Reads only, and
# always ends with 0: provisioning/engine.py decides what is missing.
one_line() { tr '\n' ' ' | cut -c 1-300; }
say() { printf '%s=%s\n' "$1" "$2"; }
daemon=$(command -v dockerd)
say daemon "$daemon"
# /usr/sbin/dockerd and /sbin/dockerd are the same file on a merged system, and dpkg knows one of them.
say package "$([ -z "$daemon" ] || dpkg-query --search '*bin/dockerd' 2>/dev/null | head -n 1 | cut -d : -f 1)"
say client "$(case $(readlink -f "$(command -v docker)") in
  *podman*) echo podman ;;
  *snap*) echo snap ;;
  ?*) dpkg-query --search "$(readlink -f "$(command -v docker)")" 2>/dev/null | cut -d : -f 1 ;;
esac)"
say rootless "$(for socket in /run/user/*/docker.sock; do [ ! -S "$socket" ] || echo "$socket"; done | one_line)"
say unit "$(systemctl is-active docker.service 2>/dev/null)"
answer=$(timeout 30 docker version --format '{{.Server.Version}}' 2>&1)
case $? in
  0) say version "$answer" ;;
  124) say error 'no answer within 30 seconds' ;;
  *) say error "$(printf '%s' "$answer" | one_line)" ;;
esac
say compose "$(timeout 30 docker compose version --short 2>/dev/null)"
say buildx "$(timeout 30 docker buildx version 2>/dev/null)"
timeout 30 docker info --format '{{range .SecurityOptions}}{{println .}}{{end}}' 2>/dev/null | grep -q '^name=rootless' && say mode rootless
timeout 30 docker image ls --format 'image={{.Repository}}:{{.Tag}}' 2>/dev/null
timeout 30 docker image ls --digests --format 'image={{.Repository}}@{{.Digest}}' 2>/dev/null
exit 0
