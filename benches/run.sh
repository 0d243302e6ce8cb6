#!/bin/sh
# Costs of system calls and process primitives side by side: native, Duet (its /tmp, and an overlay
# over a tree), and proot and runsc where they are installed. Nanoseconds an operation, medians, and
# in brackets the ratio to native.
# usage: benches/run.sh [-d SECONDS] [-f NAME]     (as abibench's options; default 0.1 s a test)
# DUET names the program; default target/release/duet.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
duet=${DUET:-$target/release/duet}
[ -x "$duet" ] || cargo build --release -q -p duet-cli
[ $# -gt 0 ] || set -- -d 0.1

work=$(mktemp -d /tmp/duet-bench-XXXXXX)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/tree/tmp" "$work/tree/data" "$work/native"
chmod 1777 "$work/tree/tmp"
gcc -O2 -static -pthread -o "$work/tree/abibench" benches/abibench.c
bench=$work/tree/abibench

echo "running native ..." >&2
"$bench" "$@" "$work/native" >"$work/1-native" || true
echo "running duet (its /tmp) ..." >&2
"$duet" run "$bench" "$@" /tmp >"$work/2-duet" || true
echo "running duet (overlay) ..." >&2
"$duet" run --rootfs "$work/tree" /abibench "$@" /data >"$work/3-duet-overlay" || true
if command -v proot >/dev/null; then
    echo "running proot ..." >&2
    proot -0 -r "$work/tree" -b /proc -b /dev /abibench "$@" /data >"$work/4-proot" || true
fi
if command -v runsc >/dev/null; then
    mkdir -p "$work/bundle" "$work/state"
    args=$(for a in /abibench "$@" /data; do printf '"%s",' "$a"; done)
    cat >"$work/bundle/config.json" <<END
{"ociVersion": "1.0.0", "process": {"user": {"uid": 0, "gid": 0}, "args": [${args%,}], "cwd": "/", "env": ["PATH=/"]},
 "root": {"path": "$work/tree"}, "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
 "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}}
END
    for platform in systrap ptrace; do # an old runsc has no systrap
        echo "running runsc ($platform) ..." >&2
        runsc --root "$work/state" --platform=$platform --network=none --ignore-cgroups run \
            --bundle "$work/bundle" "duet-bench-$platform" >"$work/5-runsc-$platform" 2>"$work/error" && break
        echo "runsc: $(tail -n 1 "$work/error")" >&2
        rm -f "$work/5-runsc-$platform"
    done
fi

for file in "$work"/[1-9]-*; do
    sed "s/^/$(basename "$file" | cut -d- -f2-) /" "$file"
done | awk '
    { if (!($1 in column)) { column[$1] = ++columns; title[columns] = $1 }
      if (!($2 in row)) { row[$2] = ++rows; name[rows] = $2 }
      value[$2, column[$1]] = $3 }
    END { printf "%-24s", "nanoseconds"
          for (c = 1; c <= columns; c++) printf "%22s", title[c]
          print ""
          for (r = 1; r <= rows; r++) {
              printf "%-24s", name[r]
              for (c = 1; c <= columns; c++) {
                  v = value[name[r], c]; base = value[name[r], 1]
                  if (v + 0 == 0) text = v == "" ? "-" : v
                  else if (c == 1 || base + 0 == 0) text = sprintf("%.0f", v)
                  else text = sprintf("%.0f (%.1fx)", v, v / base)
                  printf "%22s", text
              }
              print ""
          } }'
