#!/bin/bash
# Whole workloads side by side: native, Duet, and proot and runsc where they are installed. Medians of wall time
# in milliseconds, and in brackets the ratio to native. The ways take turns, and write to memory (/dev/shm).
# usage: benches/workloads.sh [ROUNDS]     (default 5)
# DUET names the program; default target/release/duet.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
duet=$(realpath -m "${DUET:-${CARGO_TARGET_DIR:-target}/release/duet}")
[ -x "$duet" ] || cargo build --release -q -p duet-cli

work=$(mktemp -d /var/tmp/duet-workloads-XXXXXX)
trap 'rm -rf "$work"' EXIT
python=$(ls /usr/bin/python3.[0-9]* | grep -v config | head -n 1)
{
    echo '#include <stdio.h>'
    for n in $(seq 240); do
        printf 'static int f%d(int x)\n{\n    int y = x * %d;\n    return y ^ (y >> 3);\n}\n' "$n" "$n"
    done | head -n 990
    echo 'int main(void) { return f1(1) == 0; }'
} >"$work/thousand.c"
mkdir "$work/docs"
cp -r /usr/share/doc/[a-c]* "$work/docs"

names=(python find compile archive git)
declare -A script=(
    [python]="$python -c 'import json, asyncio, sqlite3, subprocess, http.client, email.message, unittest, decimal'"
    [find]="find /usr -type f | wc -l"
    [compile]="gcc -O1 -Wno-unused-function -o \$d/out $work/thousand.c"
    [archive]="tar -czf \$d/docs.tar.gz -C $work docs"
    [git]="cd \$d && git init -q . && for n in \$(seq 500); do echo \$n >f\$n; done && git add . && git -c user.name=a -c user.email=a@b commit -qm all"
)
ways=(native duet)
! command -v proot >/dev/null || ways+=(proot)
! command -v runsc >/dev/null || ways+=(runsc)

# Runs the workload $2 in the way $1, in a new directory, and prints how long that took.
once() {
    local line="d=\$(mktemp -d /dev/shm/w-XXXXXX); ( ${script[$2]} ) >/dev/null; s=\$?; rm -rf \$d; exit \$s"
    local begun=${EPOCHREALTIME/./}
    case $1 in
        native) sh -c "$line" ;;
        duet) "$duet" run --host-root sh -c "$line" ;;
        proot) proot -0 -r / sh -c "$line" ;;
        runsc) runsc --network=none --ignore-cgroups do sh -c "$line" ;;
    esac </dev/null >/dev/null
    echo $(((${EPOCHREALTIME/./} - begun) / 100))
}
median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

printf '%-10s' ms; printf '%18s' "${ways[@]}"; echo
for name in "${names[@]}"; do
    for way in "${ways[@]}"; do once "$way" "$name" >/dev/null || :; done
    for _ in $(seq "$rounds"); do
        for way in "${ways[@]}"; do once "$way" "$name" >>"$work/$name.$way" || echo 0 >>"$work/$name.$way"; done
    done
    printf '%-10s' "$name"
    native=$(median <"$work/$name.native")
    for way in "${ways[@]}"; do
        median <"$work/$name.$way" | awk -v n="$native" '{ printf "%18s", $1 ? sprintf("%.0f (%.2fx)", $1 / 10, $1 / n) : "-" }'
    done
    echo
done
