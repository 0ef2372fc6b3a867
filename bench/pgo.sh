#!/usr/bin/env bash
# Builds qpipe with a profile of its own work (-Cprofile-use; "profile-guided optimization" in the rustc book):
# what runs for every packet lies together in memory, and what hardly ever runs is out of its way. Builds
# everything twice, with a minute of work in between. Needs llvm-profdata of rustc's LLVM or a newer one.
#
# Prints where qpipe, qsend, qrecv and qpipe-bench are then. They are always built together: alone, a program's
# dependencies have other features, and rustc would not know them again in the profile, which stays in target/pgo
# for as long as neither the sources nor rustc change.
set -euo pipefail
cd "$(dirname "$0")/.."

triple=$(rustc -vV | sed -n 's/^host: //p')
# Absolute: rustc runs in each package's own directory.
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pgo
profile=$work/qpipe.profdata
own_flags=${RUSTFLAGS:-}

# build DIRECTORY FLAGS: with a target named, build scripts and macros get no flags.
build() {
    RUSTFLAGS="$own_flags $2" cargo build --release --locked -p qpipe-cli -p qpipe-bench --bins \
        --target "$triple" --target-dir "$1"
}

find_profdata() {
    local major candidate
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for candidate in "${LLVM_PROFDATA:-}" "$(rustc --print sysroot)/lib/rustlib/$triple/bin/llvm-profdata" \
        "llvm-profdata-$major" "llvm-profdata-$((major + 1))"; do
        if [ -n "$candidate" ] && command -v "$candidate"; then
            return
        fi
    done
    echo "no llvm-profdata of LLVM $major or $((major + 1)): rustup component add llvm-tools," \
        "or Debian's llvm-$major, or LLVM_PROFDATA=FILE" >&2
    return 3
}

# Bulk and short pipes through nodes; those, many at once and echoes with the library; plain quinn and yamux as
# well, so that nothing is compared with a program that was built with less care.
work_for_profile() {
    local bin=$1 carrier number reader
    home=$(mktemp -d) nodes=()
    trap 'kill "${nodes[@]}" 2>/dev/null || true; wait; rm -rf "$home"' EXIT
    mkdir "$home/a" "$home/b"
    local a=(env "QPIPE_HOME=$home/a" "$bin/qpipe") b=(env "QPIPE_HOME=$home/b" "$bin/qpipe")
    "${b[@]}" trust add a --key "$("${a[@]}" key fingerprint)" --allow 'send:*'
    "${a[@]}" trust add b --key "$("${b[@]}" key fingerprint)" --address 127.0.0.1:7600
    "${b[@]}" serve --listen 127.0.0.1:7600 & nodes+=($!)
    "${a[@]}" serve --listen 127.0.0.1:7601 & nodes+=($!)
    sleep 1
    "${b[@]}" recv bulk > >(cat >/dev/null) & reader=$!
    head -c 2G /dev/zero | "${a[@]}" send b/bulk
    wait "$reader"
    for number in $(seq 100); do
        "${b[@]}" recv "short-$number" >/dev/null & reader=$!
        echo "$number" | "${a[@]}" send "b/short-$number"
        wait "$reader"
    done
    kill "${nodes[@]}"
    wait "${nodes[@]}" || true
    nodes=()

    "$bin/qpipe-bench" --state "$home" busy qpipe --pipes 200 --time 4s
    for carrier in qpipe quinn yamux; do
        "$bin/qpipe-bench" --state "$home" busy $carrier --time 4s
        "$bin/qpipe-bench" --state "$home" many $carrier --pipes 50000
        "$bin/qpipe-bench" --state "$home" echo $carrier --time 2s
    done
}

take_profile() {
    local profdata=$1 raw=$work/raw
    # Ethernet's datagrams, not those of 64 KiB that loopback takes, in a namespace of its own.
    local ethernet=(unshare -rn sh -c 'ip link set lo up mtu 1500 && exec "$@"' sh)
    # Cargo would not see that the profile has changed.
    rm -rf "$raw" "$work/fast"
    mkdir -p "$raw"
    build "$work/counting" "-Cprofile-generate=$raw"
    if ! "${ethernet[@]}" true 2>/dev/null; then
        echo "no network namespace is to be had: loopback as it is" >&2
        ethernet=()
    fi
    # One file for each program (%m), to which its processes add when they end.
    LLVM_PROFILE_FILE=$raw/%m.profraw "${ethernet[@]}" "$0" --work "$work/counting/$triple/release" >&2
    "$profdata" merge -o "$profile.new" "$raw"/*.profraw
    rustc -vV >"$work/rustc"
    mv "$profile.new" "$profile"
}

is_current() {
    [ -f "$profile" ] && rustc -vV | cmp -s - "$work/rustc" &&
        [ -z "$(find crates Cargo.toml Cargo.lock -newer "$profile" -type f -print -quit)" ]
}

if [ "${1:-}" = --work ]; then
    work_for_profile "$2"
    exit
fi
if ! is_current; then
    profdata=$(find_profdata)
    take_profile "$profdata"
fi
build "$work/fast" "-Cprofile-use=$profile"
echo "$work/fast/$triple/release"
