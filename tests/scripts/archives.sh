# tar with every compressor, cpio, zip-like tools; what comes out must be what went in.
exec 2>&1
mkdir t; cp -r /usr/share/perl5/Debconf t/ 2>/dev/null; cp -r /usr/share/doc/bash t/; mkfifo t/fifo; ln -s bash t/link; ln t/bash/copyright t/hard; truncate -s 5M t/sparse; printf end >>t/sparse; chmod 2751 t/bash; printf 'nul\0' >'t/odd name
x'; touch -d '1999-12-31 23:59:59.5 UTC' t/hard
list() { (cd "$1" && find . -mindepth 1 ! -type d -printf '%p %y %m %s %n %l\n' -o -type d -printf '%p %m\n' | sort | md5sum; find . -type f -print0 | sort -z | xargs -0 cat | md5sum; stat -c %y hard); }
list t
for z in gzip bzip2 xz zstd; do
    command -v $z >/dev/null || { echo "no $z"; continue; }
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --use-compress-program=$z -cSf t.tar.z -C t . ; mkdir o; tar --use-compress-program=$z -xpSf t.tar.z -C o; (cd o; find . -type f -print0 | sort -z | xargs -0 md5sum | md5sum); diff -r t o --no-dereference 2>&1 | grep -v fifo; rm -r o; $z -t <t.tar.z; echo "$z $?"
done
tar -cf a.tar -C t bash; tar -rf a.tar -C t link hard; tar --delete -f a.tar link; tar -tf a.tar | sort | tail -n 3; tar -df a.tar -C t && echo same; tar -cf - --format=posix -C t . | (mkdir p; tar -xf - -C p); list p
tar -cg snap -f i0.tar t; echo new >t/new; tar -cg snap -f i1.tar t; tar -tf i1.tar | grep -v '/$'; tar --to-stdout -xf i1.tar t/new; tar -xf a.tar --transform 's/bash/renamed/' ; ls -d renamed hard; tar --xattrs --acls -cf x.tar t 2>&1 | head -n 2
(cd t; find . -depth -print0 | cpio -0 -o -H newc --quiet) >c.cpio; mkdir cc; (cd cc; cpio -idm --quiet <../c.cpio; ls | wc -l; stat -c %a bash)
seq 200000 | gzip -9 >s.gz; zcat s.gz | md5sum; gzip -l s.gz | tail -n 1; gunzip -k s.gz; xz -T2 -k s; xz -dc s.xz | cmp - s && zstd -q -T2 s -o s.zst && zstd -dc s.zst | cmp - s && echo "round trip"; bzip2 -k s; bzcat s.bz2 | md5sum; head -c 100 s.gz | gzip -t; echo $?; zgrep -c 99999 s.gz; xzgrep -c 777 s.xz; rm s; ls s*
