# GNU coreutils, each on something that asks more of a file system than reading.
exec 2>&1
mkdir -p a/b; echo one >a/f; ln -s f a/l; ln a/f a/h; mkfifo a/p; chmod 640 a/f; touch -d '2001-02-03 04:05:06.123456789 UTC' a/f
cp -a a c; stat -c '%n %F %a %h %s' c/f c/l c/p; stat -c %y c/f; [ c/f -ef c/h ] && echo linked; cp --reflink=auto --sparse=always a/f r; cp -l a/f hard; cp -s "$PWD/a/f" sym; readlink sym | grep -c a/f
cp -u a/f c/f; cp -b -S .old a/f r; ls r*; cp --parents a/b/../f c; mv -n a/f c/f; mv -T c d; ls -R d | head -n 12
install -D -m 2755 -o "$(id -u)" a/f x/y/z; stat -c '%a' x/y/z; ln -sfn b a/l; ln -srv "$PWD/d/f" a/rel | wc -l; readlink a/rel
dd if=/dev/zero of=sp bs=1k count=0 seek=2000 status=none; stat -c '%s %b' sp; printf x | dd of=sp conv=notrunc bs=1 seek=5000 status=none; du -k --apparent-size sp
dd if=sp of=sp2 bs=64k iflag=fullblock oflag=append conv=notrunc status=none; cmp sp sp2 && echo equal; truncate -s +5 sp; stat -c %s sp; fallocate -l 8192 -o 4096 fa; stat -c '%s %b' fa; fallocate -p -o 4096 -l 4096 fa; stat -c '%s %b' fa
shred -u -n 1 sp2; ls sp2; split -n 3 --additional-suffix=.t a/f; cat x*.t; csplit -s <(seq 9) 4 7; wc -l xx*; sync sp; sync -f sp
sha256sum a/f r | tee sums; sha256sum -c sums; b2sum a/f; cksum a/f; md5sum --tag a/f; base32 a/f; tail -c 3 a/f; tac sums | wc -l
touch log; (echo 1; sleep 0.3; echo 2) >log & tail -f --pid=$! -s 0.05 log; (timeout -s KILL 0.2 sleep 5; echo $?) 2>/dev/null; bash -c "timeout -k 0.1 0.1 sh -c 'trap : TERM; sleep 5 & wait; wait'" 2>/dev/null || echo $?
nohup sh -c 'echo nohup' </dev/null | cat; nice -n 5 nice; stdbuf -oL echo buffered; env -i A=b env; env -C a pwd | grep -o '/a$'; env -S'x=1 sh -c "echo $x"' ; chroot / true; echo "chroot $?"
chmod -v u=rwx,go=u-w a/f; chmod -R a+X,o-r a; stat -c '%a %n' a a/b; touch -r a/f -a r; touch -h -d @0 a/l; stat -c '%Y' a/l; mktemp -u -p . abcXXX.txt | wc -c; realpath -e nothing; realpath -m a/../q | grep -o '/q$'; pathchk -p 'a:b?'
rm -d a/b; rm -r --interactive=never a/l; rm -rf a; ls a; rmdir -p x/y; unlink r; test -e r; echo $?; df --output=target . | tail -n 1 | wc -l; ls -la --time-style=+ d | awk 'NR > 3 { print $1, $2 }'; ls --color=always -d d | od -c | head -n 2
id -u; groups; whoami; logname; tty; uname -s; nproc --all | grep -c .; printenv LANG; seq 1e5 | sort -R --random-source=<(yes) | sort -n -S 100k -T . --parallel=2 | md5sum; seq 30000 | shuf | sort -n --compress-program=gzip -S 50k -T . | tail -n 1
mkdir many; (cd many; seq 2000 | xargs touch); ls many | wc -l; ls -U many | sort -n | tail -n 1; rm -r many; echo done
