# strace on guests: a pipeline, an interpreter, failures, attaching, counting, tampering, a multithreaded program.
exec 2>&1
# What differs from run to run: numbers of processes, addresses, times, the caller's environment.
plain() { sed -e 's/^\[pid *[0-9]*\] //' -e 's/^[0-9]*  *//' -e 's/0x[0-9a-f]*/PTR/g' -e 's/si_pid=[0-9]*/si_pid=N/' -e 's/^kill([0-9]*/kill(N/' -e 's/si_[us]time=[0-9]*/T/g' -e 's,/\* [0-9]* vars \*/,VARS,' -e 's/  *= /= /' -e 's/= [0-9][0-9]*$/= N/' -e 's/[<>0-9]* *<unfinished ...>/ unfinished/'; }
cat >job <<'END'
#!/bin/bash
cd /usr/share; echo start | tr a-z A-Z
/no/such/program; /etc/passwd
sh -c 'exit 3'; echo $?
trap 'echo caught' USR1; kill -USR1 $$
END
chmod +x job
strace -f -o log -e trace=execve,chdir,kill,exit_group -e 'signal=!chld' ./job 2>/dev/null; echo $?
# The order between processes is not fixed, nor which of them is interrupted in its line.
grep -v -e resumed -e '+++' log | plain | sed 's/ unfinished$/)= N/' | sort | uniq -c
strace -o log -e trace=%file -P /etc/hostname cat /etc/hostname /none >/dev/null; plain <log
strace -e trace=getcwd,mkdir,rmdir -o log sh -c 'cd /tmp; pwd; mkdir /tmp/a-dir; rmdir /tmp/a-dir; pwd -P' >/dev/null; grep -c getcwd log
strace -o log -e trace=openat -e inject=openat:error=ENOMEM:when=2+ cat /etc/hostname; plain <log
strace -o log -y -e trace=read,write dd if=/etc/hostname of=copy status=none; grep -c -e 'read.*</etc/hostname>' -e "write.*<$PWD/copy>" log
strace -c -o log -f -e trace=clone,vfork,execve,wait4 sh -c 'true & wait; ls >/dev/null; id -u'; awk '$NF ~ /^[a-z]/ && $4 > 0 { print $NF }' log | grep -e execve -e wait4 | sort
# Attached to, and let go.
sleep 100 & sleeper=$!; sleep 0.2
strace -q -o log -p $sleeper 2>/dev/null & tracer=$!
until grep -q "TracerPid:.$tracer" /proc/$sleeper/status; do sleep 0.05; done; echo attached
kill -INT $tracer; wait $tracer 2>/dev/null; grep TracerPid /proc/$sleeper/status
kill -STOP $sleeper; kill -CONT $sleeper; kill -0 $sleeper && kill $sleeper; wait $sleeper; echo $?
strace -f -o log -e trace=none -e signal=none python3 -c '
import threading, subprocess
done = []
def work(i): done.append(i); subprocess.run(["true"])
all = [threading.Thread(target=work, args=[i]) for i in range(8)]
[t.start() for t in all]; [t.join() for t in all]; print(sorted(done))'; echo $?; grep -c 'exited with 0' log
