# stress-ng's stressors, some rounds each, checking what they get: a line for each with its verdict, and what it
# said on standard error. After the last it says `done` and waits for a line, which may be `again`.
# usage: stress.sh SECONDS STRESSOR ...
limit=$1; shift
while :; do
    for name; do
        said=$(stress-ng --oomable --verify --temp-path . --timeout "$limit" --"$name" 2 --"$name"-ops 20 2>&1 </dev/null); status=$?
        case $status:$said in
            0:*skipped*|3:*|4:*|1:*"No stress workers"*) verdict=skipped;;
            0:*) verdict=ok;;
            *) verdict=failed;;
        esac
        echo "$verdict $name"; printf '=== %s %s\n%s\n' "$name" $status "$said" >&2
    done
    echo done
    read -r next || exit 0
    [ "$next" = again ] || exit 0
done
