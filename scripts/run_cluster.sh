#!/usr/bin/env bash
# Three nodes on loopback, with their data below ./data/cluster, until Ctrl-C.
# Their APIs are at 127.0.0.1:9080, :9081 and :9082. The cluster has no secret: it is all on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BUCKETDB_RUN_BINARY:-$PWD/bin/bucketdb}
data=${BUCKETDB_RUN_DATA:-$PWD/data/cluster}
read -ra api <<<"${BUCKETDB_RUN_APIS:-127.0.0.1:9080 127.0.0.1:9081 127.0.0.1:9082}"
read -ra peer <<<"${BUCKETDB_RUN_PEERS:-127.0.0.1:8080 127.0.0.1:8081 127.0.0.1:8082}"
[ -x "$bin" ] || { echo "run_cluster.sh: $bin is not there: run 'make build' first" >&2; exit 1; }

pids=()
cleanup() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap cleanup EXIT
trap 'exit 0' INT TERM

# start I FLAG...: node I of three, with its log in a file, in a session of its own: Ctrl-C is for this script.
start() {
  local i=$1 dir=$data/n$(($1 + 1))
  shift
  mkdir -p "$dir"
  setsid "$bin" server -id "n$((i + 1))" -api "${api[i]}" -http "${peer[i]}" -metadata "$dir/metadata" -storage "$dir/chunks" "$@" >>"$dir/log" 2>&1 &
  pids+=($!)
}

# ready I: until node I answers, or has ended.
ready() {
  until "$bin" health --endpoint "http://${api[$1]}" >/dev/null 2>&1; do
    kill -0 "${pids[$1]}" 2>/dev/null || { tail -n 5 "$data/n$(($1 + 1))/log" >&2; exit 1; }
    sleep 0.1
  done
}

start 0 -bootstrap=true
start 1 -join "${peer[0]},${peer[2]}"
start 2 -join "${peer[0]},${peer[1]}"
for i in 0 1 2; do ready "$i"; done

cat <<TEXT

A cluster of three nodes is running:

  n1  http://${api[0]}   n2  http://${api[1]}   n3  http://${api[2]}
  data and logs in $data

Try, in another terminal:

  export BUCKETDB_ENDPOINT=http://${api[0]},http://${api[1]},http://${api[2]}
  bin/bucketdb mb demo && bin/bucketdb cp README.md bd://demo/README.md
  curl http://${api[2]}/objects/demo/README.md

Ctrl-C stops it; the data stays.
TEXT
wait "${pids[@]}"
