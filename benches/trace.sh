#!/bin/bash
# What tracing costs: the same programs natively, in the layer, under strace, under duet trace and duet trace
# --fast, in turn. First the time of a whole run, in milliseconds, then the time that processors spent on it, the
# tracer's included, which says more on a machine that is busy. Medians, and in brackets the ratio to strace.
# usage: benches/trace.sh [RUNS]      (default 5)
# DUET names the program; default target/release/duet.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-5}
duet=${DUET:-${CARGO_TARGET_DIR:-target}/release/duet}
[ -x "$duet" ] || cargo build --release -q -p duet-cli
command -v strace >/dev/null || { echo "benches/trace.sh: needs strace" >&2; exit 1; }

work=$(mktemp -d /tmp/duet-bench-XXXXXX)
trap 'rm -rf "$work"' EXIT INT TERM
gcc -O2 -static -o "$work/million" testbins/million.c
printf '#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n' >"$work/hello.c"
tools=(native layer strace trace fast)

# One run of a program by a tool: "WALL CPU" in milliseconds.
once() {
    local tool=$1
    shift
    local command=("$@")
    case $tool in
    layer) command=("$duet" -q run --host-root "$@") ;;
    strace) command=(strace -f -o "$work/log" "$@") ;;
    trace) command=("$duet" -q trace --host-root -o "$work/log" "$@") ;;
    fast) command=("$duet" -q trace --host-root --fast -o "$work/log" "$@") ;;
    esac
    # To a file: some programs do less if they see that nobody reads.
    local TIMEFORMAT='%R %U %S'
    { time "${command[@]}" <<<xx >"$work/output" 2>"$work/errors"; } 2>"$work/time" ||
        { echo "benches/trace.sh: $tool: $*: failed" >&2; cat "$work/errors" >&2; }
    awk 'END { print $1 * 1000, ($2 + $3) * 1000 }' "$work/time"
}

# A line for a program: its name, then its words.
line() {
    local name=$1 tool column
    shift
    rm -f "$work"/of-*
    for _ in $(seq "$runs"); do
        for tool in "${tools[@]}"; do once "$tool" "$@" >>"$work/of-$tool"; done
    done
    for column in 1 2; do
        for tool in "${tools[@]}"; do
            sort -n -k$column "$work/of-$tool" | awk -v n=$(((runs + 1) / 2)) -v c=$column 'NR == n { print $c }'
        done | tr '\n' ' ' | awk -v name="$name" '{
            printf "| %s | %.0f | %.0f | %.0f | %.0f (%.2f) | %.0f (%.2f) |\n", name, $1, $2, $3, $4, $4 / $3, $5, $5 / $3 }' >>"$work/table-$column"
    done
}

line '100,000 native calls' "$work/million" 50000 50000
line '`dd`, a byte at a time' dd if=/dev/zero of=/dev/null bs=1 count=20000
line '`find`, two levels of /usr' find /usr -maxdepth 2
line '`ls -l /usr/bin`' ls -l /usr/bin
line '`sh`, 50 programs' sh -c 'i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i + 1)); done'
line '`python3`, imports' /usr/bin/python3 -I -c 'import json, http.client, email, argparse, unittest'
line '`gcc`, a small file' gcc -S -o "$work/hello.s" "$work/hello.c"
line '`grep -r`, 530 files' grep -r --include=*.h define /usr/include/linux
for column in 1 2; do
    [ $column = 1 ] && echo "| whole runs, ms | native | duet run | strace | duet trace | --fast |" ||
        echo "| processor time, ms | native | duet run | strace | duet trace | --fast |"
    echo "|---|---|---|---|---|---|"
    cat "$work/table-$column"
    echo
done
