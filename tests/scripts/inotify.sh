# inotifywait, tail -F and Python's watchdog on trees in memory and on old files.
exec 2>&1
cp -r /usr/share/doc/bash tree 2>/dev/null || mkdir tree; mkdir -p tree/deep/er; echo old >tree/deep/old
touch log; inotifywait -q -m -r --format '%w %e %f' tree >>log 2>&1 & watcher=$!
until grep -q OPEN log; do : <tree/deep/old; sleep 0.05; done; sleep 0.2; : >log
echo new >tree/deep/new; mv tree/deep/new tree/deep/er/moved; echo more >>tree/deep/old; chmod 600 tree/deep/old
ln -s x tree/link; rm tree/link; rm tree/deep/er/moved
sleep 0.3; kill $watcher; wait $watcher
# Nobody is told in the layer that a directory is read.
grep -v ISDIR log | grep -v OPEN
echo one >followed; timeout 90 tail -n +1 -F followed >tailed 2>/dev/null & tail=$!
until grep -q one tailed 2>/dev/null; do sleep 0.05; done
echo two >>followed; until grep -q two tailed; do sleep 0.05; done
mv followed followed.1; echo three >followed; until grep -q three tailed; do sleep 0.05; done
kill $tail; wait $tail; cat tailed
inotifywait -q -t 20 -e close_write --format '%e %f' . >once & waiter=$!
until grep -q inotify /proc/$waiter/fdinfo/* 2>/dev/null; do sleep 0.05; done; sleep 0.1
echo x >touched; wait $waiter; cat once
