#!/usr/bin/env bash
# Measures the congestion controller with real qpipe processes over netlab: share of the link's rate at
# the reader, round trip of a ping beside it, and shares beside TCP and beside qpipe. Needs root,
# /dev/net/tun, ping, and iperf3 for the competition.
#
#   cargo build --release -p qpipe-cli -p qpipe-netlab
#   bench/links.sh alone       one pipe, over the links of docs/congestion.md
#   bench/links.sh beside      one pipe and one TCP connection: CUBIC, Reno, BBR
#   bench/links.sh together    two and eight pipes, each in a session of its own: Jain's index
#   bench/links.sh first       the first 5 MB of a new connection, in seconds
#   ONLY='100mbit 25ms 1%' bench/links.sh alone        lines that begin so
set -euo pipefail
self=$(realpath "$0")
root=$(dirname "$(dirname "$self")")
bin=${BIN:-$root/target/release}
only=${ONLY:-}

# --- inside a lab, in a directory of its own

in_a() { QPIPE_HOME=$PWD/a ip netns exec "$NETLAB_A" "$@"; }
in_b() { QPIPE_HOME=$PWD/b ip netns exec "$NETLAB_B" "$@"; }
wait_until() {
    local deadline=$((SECONDS + 60))
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { echo "in vain: $*" >&2; return 1; }
        sleep 0.01
    done
}

# Pipe N from A to B for so many seconds; reads and their times in times.N.
pipe() {
    timeout "$2" cat /dev/zero | in_a "$bin/qpipe" send 2>"said.$1" &
    wait_until grep -q '^qpipe recv' "said.$1"
    QPIPE_TICKET=$(awk '/^qpipe recv/ { print $3; exit }' "said.$1") \
        in_b timeout "$2" "$bin/qpipe" recv 2>"said.b.$1" | "$bin/stamp" >"times.$1" || true
}

# Bits in a second from second FROM to second TO of a file of times.
rate() {
    awk -v from="$2" -v to="$3" 'NR == 1 { zero = $1 }
        $1 - zero < from { first = $2 } $1 - zero < to { last = $2 }
        END { printf "%.0f\n", (last - first) * 8 / (to - from) }' "$1"
}

bits() { numfmt --from=si "$(sed 's/mbit/M/; s/kbit/K/' <<<"$1")"; }

# The mean round trip of pings from second FROM on, in ms.
ping_mean() { awk -F'time=' -v from="$2" '/time=/ { if (++n > from * 5) { sum += $2; m++ } }
    END { printf "%.1f", m ? sum / m : 0 }' "$1"; }

alone() {
    local rate=$1 delay=$2 from=$3 to=$4
    in_a ping -n -i 0.2 -w "$to" "$NETLAB_B_IP" >pings &
    pipe 1 $((to + 1))
    local got base
    got=$(rate times.1 "$from" "$to")
    base=$(awk -v d="${delay%ms}" 'BEGIN { print 2 * d }')
    awk -v got="$got" -v rate="$(bits "$rate")" -v rtt="$(ping_mean pings "$from")" -v base="$base" \
        'BEGIN { printf "%5.1f %%  ping %6.1f ms, %.2fx\n", got / rate * 100, rtt, rtt / base }'
}

beside() {
    in_b iperf3 -s -1 >/dev/null &
    sleep 0.5
    in_a iperf3 -C "$1" -c "$NETLAB_B_IP" -t 62 --json >tcp.json &
    local tcp=$!
    pipe 1 62
    wait "$tcp" || true
    local theirs
    theirs=$(jq '[.intervals[] | select(.sum.start >= 10 and .sum.end <= 60.5)
        | .sum.bits_per_second] | add / length' tcp.json)
    awk -v ours="$(rate times.1 10 60)" -v theirs="$theirs" 'BEGIN {
        printf "ours %4.0f %%, %.1f of %.1f Mbit/s\n", ours / (ours + theirs) * 100,
            ours / 1e6, (ours + theirs) / 1e6 }'
}

together() {
    for ((n = 1; n <= $1; n++)); do
        pipe "$n" $((45 + $1 - n)) &
        sleep 1
    done
    wait
    for ((n = 1; n <= $1; n++)); do
        rate "times.$n" $((10 + $1 - n)) $((40 + $1 - n))
    done | awk '{ sum += $1; squares += $1 * $1; n++ }
        END { printf "Jain %.3f, %.1f Mbit/s in all\n", sum * sum / (n * squares), sum / 1e6 }'
}

# From the dial to 5 MB at the reader.
first() {
    head -c 5000000 /dev/zero | in_a "$bin/qpipe" send 2>said &
    wait_until grep -q '^qpipe recv' said
    local began=$EPOCHREALTIME
    QPIPE_TICKET=$(awk '/^qpipe recv/ { print $3; exit }' said) \
        in_b "$bin/qpipe" recv 2>said.b | "$bin/stamp" >times
    awk -v began="$began" '{ last = $1 } END { printf "%.3f s\n", last - began }' times
}

# --- outside

if [ "${1-}" = --inside ]; then
    shift
    "$@"
    exit
fi

# lab LABEL NETLAB-OPTIONS -- PART...
lab() {
    local label=$1
    shift
    case $label in "$only"*) ;; *) return ;; esac
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    local dir
    dir=$(mktemp -d)
    printf '%-44s' "$label"
    (cd "$dir" && "$bin/netlab" run --subnet "${SUBNET:-40}" "${options[@]}" -- \
        bash "$self" --inside "$@" 2>log) || { echo failed; tail -3 "$dir/log"; }
    rm -rf "$dir"
}

case ${1-} in
alone)
    for loss in 0 0.1 1 2 5 10; do
        lab "100mbit 25ms $loss%" --rate 100mbit --delay 25ms --loss $loss% -- alone 100mbit 25ms 5 35
    done
    lab '100mbit 25ms bursts' --rate 100mbit --delay 25ms --loss-burst 1%,20% -- alone 100mbit 25ms 5 35
    for loss in 0 1; do
        lab "500mbit 75ms $loss%" --rate 500mbit --delay 75ms --loss $loss% -- alone 500mbit 75ms 10 35
    done
    lab '10mbit 300ms' --rate 10mbit --delay 300ms -- alone 10mbit 300ms 15 45
    lab '2mbit 50ms queue of 25' --rate 2mbit --delay 50ms --queue 37500 -- alone 2mbit 50ms 5 35
    ;;
beside)
    for bdp in 1 4; do
        for tcp in cubic reno bbr; do
            lab "50mbit 20ms queue ${bdp}bdp $tcp" --rate 50mbit --delay 10ms \
                --queue $((125000 * bdp)) -- beside $tcp
        done
    done
    ;;
together)
    for count in 2 8; do
        lab "50mbit 20ms $count pipes" --rate 50mbit --delay 10ms --queue 125000 -- together $count
    done
    ;;
first)
    for run in 1 2 3 4 5; do
        lab "100mbit 25ms run $run" --rate 100mbit --delay 25ms -- first
    done
    ;;
*)
    sed -n '/^#   /s/^#   //p' "$self" >&2
    exit 2
    ;;
esac
