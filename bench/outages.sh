#!/usr/bin/env bash
# Measures how soon bytes flow again after outages and address changes: real qpipe processes over
# netlab, 20 Mbit/s, 25 ms each way. Needs root and /dev/net/tun. Prints a line for each kind of
# trouble: how many times it was measured, median and worst in ms.
#
#   cargo build --release -p qpipe-cli -p qpipe-netlab
#   bench/outages.sh [RUNS]            outages: each so many times [10]
#   OUTAGES="1 12" CHANGES=5 JOBS=4 bench/outages.sh 3    JOBS: outages at once; above 1, all kinds of
#                                      changes side by side
#
# The times: of an outage, from the link's return to the next read at the reader; of an address
# change under load, the longest time between two reads that begins before it or within 1 s, less
# what of it passed while the change took place; of one on an idle session, from a write to its read.
set -euo pipefail
self=$(realpath "$0")
root=$(dirname "$(dirname "$self")")
bin=${BIN:-$root/target/release}
runs=${1:-10}
outages=${OUTAGES:-1 12 45 120}
changes=${CHANGES:-12}
jobs=${JOBS:-1}

# --- inside a lab, in a directory of its own

in_a() { QPIPE_HOME=$PWD/a ip netns exec "$NETLAB_A" "$@"; }
in_b() { QPIPE_HOME=$PWD/b ip netns exec "$NETLAB_B" "$@"; }
change() { "$bin/netlab" ctl "$@" >/dev/null; }
# Whatever it is, it comes within minutes, or something has failed.
wait_until() {
    local deadline=$((SECONDS + 300))
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { echo "in vain: $*" >&2; return 1; }
        sleep 0.01
    done
}
bytes_read() { awk 'END { print $2 + 0 }' times; }
more_than() { [ "$(bytes_read)" -gt "$1" ]; }

# The next read after a moment, in ms from it.
first_after() { awk -v t="$1" '$1 > t { printf "%.1f\n", ($1 - t) * 1000; exit }' times; }

# The file "changes" has lines of when a change began and when it was over.
gaps() {
    awk 'NR == FNR { at[NR] = $1; over[NR] = $2; n = NR; next }
        { for (i = 1; i <= n; i++) if (last && $1 > at[i] && last < at[i] + 1) {
              excused = ($1 < over[i] ? $1 : over[i]) - (last > at[i] ? last : at[i])
              if (excused < 0) excused = 0
              gap = $1 - last - excused
              if (gap > worst[i]) worst[i] = gap
          }
          last = $1 }
        END { for (i = 1; i <= n; i++) printf "%.1f\n", worst[i] * 1000 }' changes times
}

outage() {
    head -c 12000000 /dev/urandom >content
    : >times
    in_a "$bin/qpipe" send <content 2>said &
    wait_until grep -q '^qpipe recv' said
    QPIPE_TICKET=$(awk '/^qpipe recv/ { print $3; exit }' said)
    export QPIPE_TICKET
    in_b "$bin/qpipe" recv 2>said.b | "$bin/stamp" -c received >times &
    wait_until more_than 2000000
    change down
    sleep "$1"
    local returned=$EPOCHREALTIME
    change up
    wait
    cmp content received >&2
    first_after "$returned"
}

# B's node, which lets A use the pipe x.
serve() {
    in_b "$bin/qpipe" serve --listen "$NETLAB_B_IP:7473" 2>serving &
    server=$!
    wait_until grep -q listening serving
    in_b "$bin/qpipe" trust add a --key "$(in_a "$bin/qpipe" key fingerprint)" \
        --allow send:x --allow recv:x >&2
    in_a "$bin/qpipe" trust add b --key "$(in_b "$bin/qpipe" key fingerprint)" \
        --address "$NETLAB_B_IP:7473" >&2
}

# The sender's standard input is ours; what arrives goes to `times` and `received`.
through_x() {
    : >times
    if [ "$1" = from_a ]; then
        in_b "$bin/qpipe" recv x 2>said.b | "$bin/stamp" -c received >times &
        in_a "$bin/qpipe" send b/x 2>said
    else
        in_a "$bin/qpipe" recv b/x 2>said.a | "$bin/stamp" -c received >times &
        in_b "$bin/qpipe" send x 2>said
    fi
}

# What moves, and which way: a change every 5 s while the link is full.
load() {
    serve
    head -c $((changes * 5 * 2400000 + 5000000)) /dev/urandom >content
    through_x "$2" <content &
    wait_until more_than 1000000
    for ((i = 0; i < changes; i++)); do
        sleep 5
        local began=$EPOCHREALTIME
        change "$1"
        echo "$began $EPOCHREALTIME" >>changes
    done
    wait_until more_than $(($(stat -c %s content) - 1))
    kill "$server"
    wait
    cmp content received >&2
    gaps
}

idle() {
    serve
    mkfifo input
    through_x "$2" <input &
    exec 3>input
    echo first >&3
    wait_until more_than 0
    for ((i = 0; i < changes; i++)); do
        sleep 3
        change "$1"
        local before written
        before=$(bytes_read)
        written=$EPOCHREALTIME
        echo "$i" >&3
        wait_until more_than "$before"
        first_after "$written"
    done
    exec 3>&-
    wait_until grep -qx "$((changes - 1))" received
    kill "$server"
    wait
}

if [ "${1-}" = --inside ]; then
    shift
    "$@"
    exit
fi

# --- outside

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One measurement in a lab of its own; prints the times, and to stderr what went wrong.
measure() {
    local directory
    directory=$(mktemp -d "$work/XXXXXX")
    cd "$directory"
    if ! "$bin/netlab" run --quiet --rate 20mbit --delay 25ms -- "$self" --inside "$@" \
        2>trouble; then
        echo "failed: $*" >&2
        cat trouble said* >&2
    fi
    cd "$work"
    rm -rf "$directory"
}
export -f measure
export work self bin changes CHANGES="$changes" BIN="$bin"

# NAME TIMES COMMAND...: so many measurements, some at once, and their summary.
summary() {
    local name=$1 times=$2
    shift 2
    seq "$times" | xargs -P "$jobs" -I{} bash -c 'measure "$@"' - "$@" | sort -g |
        awk -v name="$name" '{ all[NR] = $1 }
            END { printf "%-58s %4d %9s %9s\n", name, NR, all[int((NR + 1) / 2)], all[NR] }'
}

aside() { if [ "$jobs" -gt 1 ]; then "$@" & else "$@"; fi; }

printf '%-58s %4s %9s %9s\n' "trouble" n median worst
for seconds in $outages; do
    summary "outage of $seconds s" "$runs" outage "$seconds"
done
aside summary "NAT rebinds every 5 s, sender behind it" 1 load roam from_a
aside summary "NAT rebinds every 5 s, side that only receives behind it" 1 load roam from_b
aside summary "host moves every 5 s, sends" 1 load roam-real from_a
aside summary "host moves every 5 s, only receives" 1 load roam-real from_b
aside summary "NAT rebinds, idle, first byte of the dialling side" 1 idle roam from_a
aside summary "NAT rebinds, idle, first byte of the other side" 1 idle roam from_b
aside summary "host moves, idle, first byte of the dialling side" 1 idle roam-real from_a
aside summary "host moves, idle, first byte of the other side" 1 idle roam-real from_b
wait
