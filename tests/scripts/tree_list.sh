# Every entry of a tree with its kind, mode, owner, size, count of links, time and target, where times of the last day are
# `new`; then devices by their numbers, and sums of what lies in /etc. Packages, and passwords, are never twice the same.
export LC_ALL=C; cd /; old=$(($(date +%s) - 86400)); skip='-path ./proc -o -path ./sys -o -path ./dev -o -path ./debs.tar'
find . \( $skip \) -prune -o -type d -printf '%p %y %m %U:%G\n' -o -type l -printf '%p %y %U:%G %l\n' -o -type f -printf '%p %y %m %U:%G %s %n %Ts\n' -o -printf '%p %y %m %U:%G %n\n' | awk -v old="$old" '$1 ~ /\.deb$/ { $5 = "-" } $2 == "f" && $NF > old { $NF = "new" } { print }' | sort
find . \( $skip \) -prune -o \( -type b -o -type c \) -exec stat -c '%n %t:%T' {} + | sort
find etc -type f ! -name '*-' ! -name shadow | sort | xargs md5sum
