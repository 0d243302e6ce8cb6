# bash: job control, waits, traps, coprocesses, process substitution.
set -m
# Notices of jobs that ended come when they come.
exec 3>&2 2>/dev/null
sleep 100 & sleep 200 &
jobs
kill -STOP %1; wait -f %1 2>/dev/null & sleep 0.2; jobs %1
bg %1; kill %1; wait %1; echo "term $?"
kill -INT %2; wait %2; echo "int $?"
(sleep 0.1; exit 3) & (sleep 10; exit 4) & wait -n; echo "first $?"; kill %+; wait; jobs
# A job in the foreground that stops itself comes back to the shell, and goes on.
bash -c 'echo before; kill -STOP $$; echo after; exit 5'; echo "stopped $?"; jobs | sed 's/ *bash.*//'
fg %?before >/dev/null; echo "continued $?"
# Each job is a process group of its own.
sleep 5 & a=$(ps -o pgid= -p $! | tr -d ' '); [ "$a" = $! ] && echo "own group"; { kill %%; wait; } 2>/dev/null
exec 2>&3 3>&-
set +m
trap 'echo usr1' USR1; trap 'echo exit $?' EXIT
(kill -USR1 $$); wait; trap
coproc CAT { tr a-z A-Z; }; echo through coproc >&"${CAT[1]}"; eval "exec ${CAT[1]}>&-"; cat <&"${CAT[0]}"; wait
diff <(seq 3) <(seq 2 4); tee >(wc -l) >/dev/null < <(seq 7) | cat
mapfile -t lines < <(printf 'x\ny y\n'); echo "${#lines[@]} ${lines[1]}"
cat <<<"here $BASHPID" | grep -c here; exec {fd}>file; echo text >&$fd; exec {fd}>&-; cat file
ulimit -n 100; ulimit -n; (ulimit -f 1; head -c 5000 /dev/zero >big) 2>/dev/null; echo "xfsz $?"; stat -c %s big
umask 027; mkdir d; stat -c %a d; pushd d >/dev/null; dirs | grep -c d; popd >/dev/null; cd -P .; hash ls; type -t ls
read -t 0.1 <> <(sleep 1); echo "timeout $((($? > 128)))"; enable -n echo; echo external; shopt -s globstar; mkdir -p t/u; touch t/u/v; echo **/v
(exec -a renamed sh -c 'ps -o args= -p $$' | cut -c1-7); time -p true 2>/dev/null; exit 7
