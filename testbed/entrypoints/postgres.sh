#!/bin/bash
# Starts PostgreSQL as the official image's entrypoint does: the data belongs to the server's account; the first boot of
# an empty volume makes the cluster, the superuser POSTGRES_USER with POSTGRES_PASSWORD (or _FILE) and the database
# POSTGRES_DB, and runs /docker-entrypoint-initdb.d/*.{sql,sh}. A first boot that was killed is begun anew.
set -Eeuo pipefail

export PATH="/usr/lib/postgresql/15/bin:$PATH"
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "$1" != postgres ]; then exec "$@"; fi

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
  chmod 700 "$PGDATA"
  chown postgres:postgres /run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH" "$0" "$@"
fi

from_file() { # NAME: takes NAME from the file that NAME_FILE names
  local file="${1}_FILE"
  if [ -n "${!file:-}" ]; then
    if [ -n "${!1:-}" ]; then echo "$1 and ${1}_FILE are both set: give one" >&2; exit 1; fi
    printf -v "$1" '%s' "$(cat "${!file}")"
  fi
}

# The cluster is made in a folder of its own; PG_VERSION, which tells that there is one, comes last into its place.
first_boot() {
  from_file POSTGRES_PASSWORD
  from_file POSTGRES_USER
  from_file POSTGRES_DB
  local user="${POSTGRES_USER:-postgres}" password="${POSTGRES_PASSWORD:-}" new="$PGDATA/.new" f
  local db="${POSTGRES_DB:-$user}" method="${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
  if [ -z "$password" ] && [ "$method" != trust ]; then
    echo "the data folder is empty and POSTGRES_PASSWORD is not set: set it to a value that is not empty" >&2
    exit 1
  fi
  find "$PGDATA" -mindepth 1 -delete
  # shellcheck disable=SC2086 # the variable holds options
  initdb -D "$new" --username="$user" --pwfile=<(printf '%s\n' "${password:-none}") --auth-local=trust --no-sync \
    ${POSTGRES_INITDB_ARGS:-} >/dev/null
  printf '\nhost all all all %s\n' "$method" >>"$new/pg_hba.conf"
  PGDATA="$new" pg_ctl -s -w -o "-c listen_addresses='' -c fsync=off" start >&2
  if [ "$db" != postgres ]; then
    psql -q -v ON_ERROR_STOP=1 -U "$user" -d postgres --set db="$db" <<<'CREATE DATABASE :"db";'
  fi
  for f in /docker-entrypoint-initdb.d/*; do
    case "$f" in
      *.sql) psql -q -v ON_ERROR_STOP=1 -U "$user" -d "$db" -f "$f" ;;
      *.sh) POSTGRES_USER="$user" POSTGRES_DB="$db" bash "$f" ;;
    esac
  done
  PGDATA="$new" pg_ctl -s -m fast -w stop >&2
  initdb --sync-only -D "$new" >/dev/null
  find "$new" -mindepth 1 -maxdepth 1 \! -name PG_VERSION -exec mv -t "$PGDATA" '{}' +
  mv "$new/PG_VERSION" "$PGDATA/"
  rmdir "$new"
  sync -f "$PGDATA"
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then first_boot; fi
unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
exec "$@" -c listen_addresses='*'
