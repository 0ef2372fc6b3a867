#!/usr/bin/env bash
# Measures qpipe beside every peer that is present, and writes medians, ratios, plots and the raw
# samples to target/bench. Needs root and /dev/net/tun; takes hours. Peers that are not installed
# are said to be absent: ssh and sshd, socat, iperf3, dumbpipe (--path DIR, if it is not in $PATH).
#
#   bench/compare.sh --page docs/performance.md     all of it, into the page
#   bench/compare.sh --rows veth,loss-1 --runs 3    some rows (--list names them)
#   bench/compare.sh --short --baseline bench/baseline.json
#                                   4 minutes; fails where a ratio is worse by more than a fifth
#   bench/compare.sh --short --baseline bench/baseline.json --write-baseline
set -euo pipefail
cd "$(dirname "$0")/.."
# As programs are that are built to be fast, where that can be done; the page says which it was.
if ! bin=$(bench/pgo.sh); then
    echo "measuring a build without a profile" >&2
    cargo build -q --release --locked -p qpipe-cli -p qpipe-bench
    bin=${CARGO_TARGET_DIR:-target}/release
fi
exec "$bin/qpipe-bench" compare "$@"
