#!/usr/bin/env bash
# make run: one node on ./data, mounted at ./mnt, until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin/bucketdb
data=${BUCKETDB_RUN_DATA:-$PWD/data}
mnt=${BUCKETDB_RUN_MOUNT:-$PWD/mnt}
api=${BUCKETDB_RUN_API:-127.0.0.1:9080}
url=http://$api
mkdir -p "$data" "$mnt"

# A session of its own: Ctrl-C is for this script, which unmounts before the server ends.
setsid "$bin" server -id n1 -api "$api" -metadata "$data/metadata" -storage "$data/chunks" \
  --log-level warn &
server=$!
mounted=""
cleanup() {
  trap - EXIT INT TERM
  [ -z "$mounted" ] || "$bin" umount "$mnt" || true
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 0' INT TERM

until "$bin" health --endpoint "$url" >/dev/null 2>&1; do
  kill -0 "$server" 2>/dev/null || { wait "$server"; exit 1; } # it has said why
  sleep 0.1
done
if "$bin" mount "$mnt" --endpoint "$url" --background; then
  mounted=yes
  where="mounted at $mnt"
else
  where="not mounted (see above); the API works all the same"
fi

cat <<TEXT

BucketDB is running: $where

  API      $url
  health   $url/readyz
  metrics  $url/metrics
  data     $data

Three things to try, in another terminal:

  mkdir $mnt/demo && cp README.md $mnt/demo/
  curl $url/objects/demo/README.md
  bin/bucketdb ls --endpoint $url demo

Ctrl-C stops it; the data stays.
TEXT
wait "$server"
