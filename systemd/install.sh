#!/bin/sh
# Installs dive-agent on this host: the program, the unit and what belongs to it. Run as root in a checkout after
# `make build`, or give the program as the first argument. Running it again upgrades; a configuration that is there stays.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
program="${1:-$here/../bin/dive-agent}"
root="${DESTDIR:-}"

install -D -m 0755 "$program" "$root/usr/local/bin/dive-agent"
install -D -m 0644 "$here/dive-agent.service" "$root/usr/lib/systemd/system/dive-agent.service"
install -D -m 0644 "$here/dive-agent.sysusers" "$root/usr/lib/sysusers.d/dive-agent.conf"
install -D -m 0644 "$here/dive-agent.tmpfiles" "$root/usr/lib/tmpfiles.d/dive-agent.conf"
[ -e "$root/etc/default/dive-agent" ] || install -D -m 0644 "$here/dive-agent.default" "$root/etc/default/dive-agent"
install -D -m 0644 "$here/agent.yaml.example" "$root/usr/share/doc/dive-agent/agent.yaml.example"
[ -z "$root" ] || exit 0

systemd-sysusers dive-agent.conf
systemd-tmpfiles --create dive-agent.conf
systemctl daemon-reload
if [ -e /etc/dive-agent/agent.yaml ]; then
  systemctl enable dive-agent.service
  systemctl restart dive-agent.service
else
  install -m 0640 -g dive-agent "$here/agent.yaml.example" /etc/dive-agent/agent.yaml
  echo "next: put this host and its repository into /etc/dive-agent/agent.yaml, then: systemctl enable --now dive-agent"
fi
