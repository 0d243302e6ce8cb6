//! busybox in a layer: shell scripts, pipelines, background jobs, and the applets that ask most of a
//! kernel. Where the answer is the same natively, native is the oracle.

use std::path::Path;

use duet_tests::{
    Output, both, busybox, command_output, copy_program, duet_run, native_run, tempdir,
};

/// Runs a script of applets alone both ways, in an empty directory.
#[track_caller]
fn script(test: &str, text: &str) {
    if let Some(program) = busybox(test) {
        both(
            &["-w", "/tmp"],
            &program,
            &["sh", "-c", &format!("PATH=/none\n{text}")],
        );
    }
}

/// The host's own shell and tools, dynamic as they are, both ways.
#[test]
fn tools_of_the_host() {
    let text = r#"
awk 'BEGIN { while (("echo cmd" | getline l) > 0) print l; print system("exit 3") }'
seq 1000 | split -l 300 - part; ls part*; cat part* | sort -rn | head -n 2; rm part*
find /etc -maxdepth 1 -name 'pass*' 2>/dev/null; id -u; expr 6 '*' 7; env | grep -c LANG
python3 -c 'import os, subprocess; print(subprocess.run(["echo", "child"], capture_output=True).stdout, os.getcwd() != "/")' 2>/dev/null
perl -e 'print `echo from perl`; open F, ">f"; print F "x" x 10; close F; print -s "f", "\n"; exit 3'; echo $?
mkdir d; tar cf - /etc/passwd 2>/dev/null | tar xf - -C d; cmp d/etc/passwd /etc/passwd && echo same
(ulimit -n 10; cat f); nice -n 3 nice; (trap 'echo trapped' TERM; kill -TERM $BASHPID 2>/dev/null || true)
sort -R < /dev/null; timeout 0.1 sleep 5; echo $?; stat -c '%n %s %U' f; ls -l f | cut -c1-10
"#;
    both(
        &["--host-root", "-w", "/tmp", "-e", "LANG=C"],
        Path::new("/bin/bash"),
        &["-c", text],
    );
}

/// Runs a script in a layer only.
fn layer(program: &Path, text: &str) -> Output {
    duet_run(&["-w", "/tmp"], program, &["sh", "-c", text], b"")
}

#[test]
fn shell_language() {
    script(
        "shell_language",
        r#"
set -e
i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo "loop $i"; done
f() { local x=$1; [ $x -le 1 ] && { echo 1; return; }; echo $(( x * $(f $((x-1))) )); }
f 6
case hello in h*) echo matched;; esac
for w in a "b c" d; do printf '%s|' "$w"; done; echo
cat <<END
here $(echo document) $((1+2))
END
(exit 3) || echo "status $?"
trap 'echo leaving' EXIT
x=abcdef; echo ${x#abc} ${x%def} ${#x} ${y:-unset}
echo one > f; echo two >> f; while read line; do echo "read $line"; done < f
exec 3> g; echo through three >&3; exec 3>&-; cat g
set -- 1 2 3; shift; echo "$# $*"
"#,
    );
}

#[test]
fn pipelines() {
    script(
        "pipelines",
        r#"
seq 1 20000 | grep 7 | sort -rn | head -n 5
yes | head -n 3
seq 1000 | tr -d '\n' | wc -c
echo hello | rev | tee copy | tr a-z A-Z; cat copy
dd if=/dev/zero bs=1k count=3000 2>/dev/null | md5sum
seq 100 | xargs -n 7 echo | tail -n 2
echo a b c | awk '{ print $3, $1; exit 4 }'; echo $?
cat /dev/null | wc -l
(echo sub; echo err >&2) 2>&1 | sort
mkfifo p; (seq 3 > p &) ; cat p
false | true; echo $?
"#,
    );
}

#[test]
fn background_jobs() {
    script(
        "background_jobs",
        r#"
sleep 0.1 & p=$!; wait $p; echo "waited $?"
(exit 5) & wait $!; echo $?
sleep 100 & p=$!; { kill $p; wait $p; } 2>/dev/null; echo $?
for i in 1 2 3 4 5 6 7 8; do (sleep 0.0$i; echo $i >> out) & done; wait; sort out
trap 'echo usr1' USR1; (sleep 0.1; kill -USR1 $$) & wait; wait; echo done
(trap 'echo term; exit 6' TERM; sleep 0.1 & wait; while :; do sleep 0.05; done) & p=$!; sleep 0.7; kill $p; wait $p; echo $?
{ timeout 0.1 sleep 10; } 2>/dev/null; echo $?
nohup true > /dev/null 2>&1; setsid true; nice -n 5 nice; start-stop-daemon -S -x /none -b 2>/dev/null; echo $?
"#,
    );
}

#[test]
fn files_and_directories() {
    script(
        "files_and_directories",
        r#"
mkdir -p a/b/c d; echo text > a/f; echo more > a/b/g; ln -s a/f link; ln a/f hard; chmod 640 a/f
find . | sort; find . -type f -size -2 -name '?' | sort; find a -exec echo found {} \; | sort
cp -a a copy; diff -r a copy && echo same; echo x >> copy/f; diff -r a copy
mv copy moved; ls -1R moved; stat -c '%a %h %s %F' hard; readlink link; realpath link | grep -o 'a/f$'
touch -d '2001-02-03 04:05:06' old; TZ=UTC ls -l --full-time old | grep -o '2001.*'; [ a/f -nt old ] && echo newer
rm -r moved; rmdir d; rmdir a 2>&1; ls none 2>&1; cat a 2>&1; cd none 2>&1
tar cf t.tar a link; mkdir x; tar xf t.tar -C x; find x | sort; tar tvf t.tar | awk '{print $1, $6}' | sort
gzip -k a/f; zcat a/f.gz; bzip2 -k a/f; bzcat a/f.bz2; xz -z a/f 2>/dev/null; echo abc | cpio -o -H newc 2>&1 | wc -c
dd if=/dev/zero of=sparse bs=1 seek=1000000 count=1 2>/dev/null; wc -c < sparse; truncate -s 10 sparse; wc -c < sparse
sed -i 's/t/T/g' a/b/g a/f; cat a/f; split -b 2 a/b/g part; ls part*; cmp a/f a/b/g; sum a/f
echo 'b
a' | sort > s; cat s; mktemp -u zXXXXXX | wc -c; d=$(mktemp -d); test -d $d && echo made; install -m 700 a/f inst; stat -c %a inst
chmod -R go= a; stat -c %a a a/b a/f; chmod u+s a/f; stat -c %a a/f; umask 077; mkdir private; stat -c %a private; du -s . > /dev/null; echo $?
"#,
    );
}

// `cat` hands the pages of a file to a pipe: whoever reads that late sees what vi has made of them.
#[test]
fn text_tools() {
    script(
        "text_tools",
        r#"
seq 10 | sed -n '2,4p;$p'; echo 'k: v' | sed 's/\(.*\): \(.*\)/\2 \1/'
printf 'b 2\na 1\nc 3\n' | sort | awk '{s+=$2; print NR, $1} END {print s}'
awk 'BEGIN { print length("abc"); printf "%.3f\n", atan2(0,-1) }'
awk 'BEGIN { print "to file" > "o"; close("o"); while ((getline l < "o") > 0) print "back", l }'
printf 'one\ntwo\n' > f; grep -n o f; grep -c x f; grep -q two f && echo yes; cut -c2 f; tail -n 1 f; tac f; nl f; fold -w 2 f; od -c f; hexdump -C f; strings f
printf 'a\tb\n' | expand; echo 'z,y' | tr , '\n' | sort; comm f f; uniq -c f; paste f f; seq 3 | shuf | sort; expr 6 \* 7; bc <<X 2>&1
2^10
X
echo test | sha256sum; echo test | base64; cal 1 2001 | head -n 2; date -u -d @0 +%Y-%m-%d; printf 'q\n' | ed f 2>/dev/null; printf '1d\nw\nq\n' | ed f; x=$(cat f); echo $x
vi -c ':1s/two/edited/' -c ':wq' f < /dev/null > /dev/null 2>&1; echo $?
"#,
    );
}

#[test]
fn thousands_of_processes() {
    script(
        "thousands_of_processes",
        "i=0; while [ $i -lt 1500 ]; do /bin/true 2>/dev/null; x=$(echo $i); i=$((i+1)); done; echo $x",
    );
}

#[test]
fn network_tools() {
    let Some(program) = busybox("network_tools") else {
        return;
    };
    // A server that is not there yet is asked again.
    let text = "again() { n=0; until \"$@\" 2>/dev/null; do n=$((n+1)); [ $n -lt 100 ] || break; sleep 0.1; done; }
                send() { echo over the wire | nc -w 1 127.0.0.1 7777; }
                nc -l -p 7777 127.0.0.1 > got & again send; wait; cat got
                mkdir www; echo page > www/index.html; httpd -p 127.0.0.1:8080 -h www; again wget -q -O page http://127.0.0.1:8080/index.html; cat page
                ifconfig lo | grep -c LOOPBACK; hostname -i 2>/dev/null | wc -l";
    let out = layer(&program, text);
    assert!(
        out.stdout.starts_with("over the wire\npage\n1\n"),
        "{out:?}"
    );
}

/// What `ps`, `top`, `mount`, `free` and their like say is about the layer, not the host.
#[test]
fn the_layers_own_machine() {
    let Some(program) = busybox("the_layers_own_machine") else {
        return;
    };
    let say = |text: &str| layer(&program, text).ok();
    let ps = say("sleep 5 & ps; kill $!");
    assert!(
        ps.contains("PID") && ps.contains("sleep 5") && ps.contains("ps") && ps.lines().count() < 8,
        "{ps}"
    );
    assert!(!ps.contains("cargo") && !ps.contains("duet run"), "{ps}");
    let top = say("top -b -n 1");
    assert!(top.contains("Mem:") && top.contains("top"), "{top}");
    let mount = say("mount");
    assert!(
        mount.contains(" on / ")
            && mount.contains(" on /proc type proc")
            && mount.contains(" on /tmp "),
        "{mount}"
    );
    assert!(
        !mount.contains("/dev/vda") && mount.lines().count() < 12,
        "{mount}"
    );
    let df = say("df -P / /tmp");
    assert_eq!(df.lines().count(), 3, "{df}");
    let free = say("free");
    assert!(
        free.lines()
            .nth(1)
            .and_then(|l| l.split_whitespace().nth(1))
            .is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 0)),
        "{free}"
    );
    assert!(say("uptime").contains("load average"));
    assert!(say("uname -a").starts_with("Linux "));
    assert!(say("nproc").trim().parse::<u32>().is_ok());
    assert_eq!(say("id").split(' ').next(), Some("uid=0"), "{}", say("id"));
    assert_eq!(
        say("kill -0 1 && echo alive; kill -9 1; echo still $?"),
        "alive\nstill 0\n"
    );
    assert_eq!(
        say(
            "pidof sleep; sleep 30 & until pidof sleep >/dev/null; do usleep 10000; done; \
             pidof sleep | wc -w; killall sleep; wait; echo ended"
        ),
        "1\nended\n"
    );
    assert!(say("cat /proc/cpuinfo; cat /proc/meminfo").contains("MemTotal"));
    assert!(say("ls /proc/self/fd; ls -l /proc/self/exe /dev/").contains("busybox"));
    assert_eq!(say("dmesg 2>/dev/null | wc -l").trim(), "0");
}

#[test]
fn fake_root() {
    let Some(program) = busybox("fake_root") else {
        return;
    };
    let out = layer(
        &program,
        "touch f; chown 1:2 f; stat -c %u:%g f; chown nobody f 2>&1 | wc -l; mknod n c 1 3 && echo data > n && echo written; mkdir r; cp /busybox r/; chroot r /busybox pwd
         mount -t tmpfs none r 2>&1 | wc -l; chmod 1777 r; stat -c %a r; touch -t 200101010101 f; su -c 'id -u' 2>/dev/null | wc -l; setuidgid 2>&1 | wc -l",
    );
    assert!(out.stdout.starts_with("1:2\n1\nwritten\n/\n"), "{out:?}");
}

#[test]
fn as_root_of_a_tree() {
    let Some(program) = busybox("as_root_of_a_tree") else {
        return;
    };
    let dir = tempdir();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    copy_program(&program, dir.path().join("bin/busybox"));
    let root = dir.path().to_str().unwrap();
    let run = |rw: bool, args: &[&str]| {
        let mut options = vec!["--rootfs", root];
        if rw {
            options.push("--rw");
        }
        duet_run(&options, Path::new("/bin/busybox"), args, b"")
    };
    run(true, &["--install", "-s", "/bin"]).ok();
    let applets = std::fs::read_dir(dir.path().join("bin")).unwrap().count();
    assert!(applets > 200, "{applets}");
    assert_eq!(
        duet_run(
            &["--rootfs", root],
            Path::new("/bin/sh"),
            &["-c", "ls /bin | wc -l"],
            b""
        )
        .ok()
        .trim(),
        applets.to_string()
    );
    let out = duet_run(&["--rootfs", root], Path::new("ls"), &["/"], b"").ok();
    assert_eq!(out, "bin\ndev\nproc\nsys\n");
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\necho \"$0 $1\"\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        duet_run(&["--rootfs", root], Path::new("/script"), &["arg"], b"").ok(),
        "/script arg\n"
    );
}

#[test]
fn many_small_files() {
    let Some(program) = busybox("many_small_files") else {
        return;
    };
    let text = "mkdir t; cd t; seq 3000 | xargs touch; ls | wc -l; mkdir s; mv [1-9]*5 s; ls s | wc -l; cd ..; tar cf - t | tar tf - | wc -l; cp -r t u; diff -r t u; rm -r t; ls";
    assert_eq!(
        native_run(&program, &["sh", "-c", text], b""),
        layer(&program, text)
    );
}

#[test]
fn whole_commands() {
    let Some(program) = busybox("whole_commands") else {
        return;
    };
    for args in [
        &["echo", "x"][..],
        &["false"],
        &["cat", "/none"],
        &["sleep", "-1"],
        &["expr", "1", "+", "1"],
        &["nosuchapplet"],
        &["test", "-d", "/proc"],
    ] {
        let mut command = std::process::Command::new(&program);
        command.args(args).env_clear().current_dir("/");
        assert_eq!(
            command_output(command, b""),
            duet_run(&[], &program, args, b""),
            "{args:?}"
        );
    }
}
