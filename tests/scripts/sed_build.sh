# GNU sed from Debian's source package: configured, compiled and tested by its own tests, a line for each with its verdict.
# usage: sed_build.sh DIRECTORY     where the package's archives lie
tar -xf "$1"/sed_*.orig.tar.xz && cd sed-*/ && tar -xf "$1"/sed_*.debian.tar.* || exit 1
for p in $(grep -v '^#' debian/patches/series 2>/dev/null); do patch -s -p1 <"debian/patches/$p" || exit 1; done
FORCE_UNSAFE_CONFIGURE=1 ./configure -q --disable-nls >&2 && make -s >&2 </dev/null || exit 1
make -s check SUBDIRS=. >log 2>&1 </dev/null
cat log >&2; sed -n 's/^\(PASS\|FAIL\|SKIP\|XFAIL\|XPASS\|ERROR\): \(.*\)$/\1 \2/p' log | sort; echo 'built by itself' | sed/sed -E 's/(.*) by (.*)/ok \1_by_\2/'
