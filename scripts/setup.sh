#!/usr/bin/env bash
# Installs the programs that the tests drive, where they are missing. Quiet unless it fails.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need fusermount3 fuse3
need rsync rsync
need git git
need sqlite3 sqlite3
need gcc gcc # the race detector links with it
need ip iproute2 # the nemesis cuts the network between nodes
need iptables-restore iptables
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "setup: please install ${missing[*]}; this script knows only apt-get" >&2
  exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  cat "$log" >&2
  echo "setup: could not install ${missing[*]}; install them by hand and run this again" >&2
  exit 1
fi
