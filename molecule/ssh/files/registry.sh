#!/bin/bash
# Starts two registries: port 5000 is the mirror of Docker Hub, port 5443 a registry with TLS and a login. The engine uses the mirror,
# and listens to the controller. Arguments: this host's address, the user and, on standard input, the password of the second registry.
set -euo pipefail
address=$1 user=$2
directory=/etc/docker-registry
mkdir -p "$directory" "/etc/docker/certs.d/occupancy-hub:5443" /etc/systemd/system/docker.service.d
htpasswd -Bin "$user" >"$directory/users"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=occupancy-hub \
  -addext "subjectAltName=DNS:occupancy-hub" -keyout "$directory/key.pem" -out "$directory/ca.crt" 2>/dev/null
cp "$directory/ca.crt" "/etc/docker/certs.d/occupancy-hub:5443/"
systemctl disable --now docker-registry # with the configuration of the package
for port in 5000 5443; do
  {
    printf 'version: 0.1\nstorage:\n  filesystem: {rootdirectory: /var/lib/registry-%s}\nhttp:\n  addr: :%s\n' $port $port
    if [ $port = 5443 ]; then
      printf '  tls: {certificate: %s/ca.crt, key: %s/key.pem}\n' "$directory" "$directory"
      printf 'auth:\n  htpasswd: {realm: occupancy, path: %s/users}\n' "$directory"
    fi
  } >"$directory/$port.yml"
  systemd-run --unit="registry-$port" --collect docker-registry serve "$directory/$port.yml"
done
printf '{"registry-mirrors": ["http://%s:5000"], "insecure-registries": ["%s:5000"]}\n' "$address" "$address" >/etc/docker/daemon.json
printf '[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://%s:2375 --containerd=/run/containerd/containerd.sock\n' \
  "$address" >/etc/systemd/system/docker.service.d/controller.conf
systemctl daemon-reload
systemctl restart docker
