# gdb on guests: breakpoints, backtraces, threads, watchpoints, following execs and forks, attaching, a core.
exec 2>&1
plain() { sed -e 's/0x[0-9a-f]*/PTR/g' -e 's/LWP [0-9]*/LWP N/g' -e 's/process [0-9]*/process N/g' -e 's/process  */process /' -e "s,$PWD,HERE,g" -e 's/  */ /g' | grep -v -e '^\[New ' -e '^\[Thread .* exited' -e 'debuginfod' -e 'No such file or directory' -e '^warning' -e clone; }
cat >p.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static int calls;
static int depth(int n) { calls++; if (n == 0) return calls; return depth(n - 1) + 1; }
static void *work(void *p) { printf("thread %ld: %d\n", (long)p, depth((long)p)); return p; }
int main(int argc, char **argv)
{
    pthread_t t;
    for (long i = 1; i < 4; i++) { pthread_create(&t, 0, work, (void *)i); pthread_join(t, 0); }
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "exec")) execl("/bin/sh", "sh", "-c", "echo in the shell; exit 3", (char *)0);
    if (argc > 1 && !strcmp(argv[1], "fork")) { if (fork() == 0) { depth(2); _exit(4); } wait(0); }
    if (argc > 1 && !strcmp(argv[1], "wait")) for (;;) pause();
    if (argc > 1 && !strcmp(argv[1], "crash")) *(volatile int *)argc = 1;
    return 5;
}
END
gcc -w -g -O0 -pthread p.c -o p || exit 1
gdb="gdb -nx -batch -iex set\ debuginfod\ enabled\ off"
run() { eval "$gdb" '"$@"' </dev/null 2>&1 | plain; }
run -ex 'break depth if n == 0' -ex run -ex 'bt -frame-arguments all' -ex 'print calls' -ex 'set var calls = 40' -ex 'info threads' -ex c -ex 'delete' -ex c ./p | grep -v -e '^#. .*start' -e futex -e '_dl_' -e '^ Id'
run -ex 'watch calls' -ex run -ex bt -ex 'delete' -ex c ./p | grep -e '^Old' -e '^New' -e depth -e exited
run -ex 'catch exec' -ex 'run exec' -ex 'info inferiors' -ex 'info sharedlibrary' -ex c ./p | grep -e Catchpoint -e executing -e shell -e exited -e ld-linux
run -ex 'set follow-fork-mode child' -ex 'break depth if n == 0' -ex 'run fork' -ex 'delete' -ex c ./p | grep -e hit -e exited
run -ex 'run crash' -ex bt -ex 'info registers rip' -ex 'x/i $pc' -ex 'info proc exe' -ex 'info proc cwd' -ex 'gcore core' -ex kill ./p | grep -e SIG -e main -e exe -e cwd -e Saved
run -ex bt -ex 'print calls' ./p core | grep -e SIG -e main -e '^\$'
./p wait & p=$!; until grep -q 'State:.S' /proc/$p/status; do sleep 0.05; done; sleep 0.3
run -p $p -ex bt -ex 'print calls' -ex 'print depth(1)' -ex 'print calls' -ex 'info auxv' -ex detach | grep -e main -e '^\$' -e AT_ENTRY -e AT_PHNUM -e detached
grep TracerPid /proc/$p/status; kill $p; wait $p; echo $?
run -ex 'starti' -ex 'info proc mappings' -ex kill ./p | grep -c -e HERE/p -e ld-linux -e 'stack'
run -ex 'run' ./none; run -ex 'run' /usr/bin/true | grep exited
