# ssh-agent over its Unix socket.
exec 2>&1; export LC_ALL=C HOME=$PWD; umask 077; ssh-keygen -q -t ed25519 -N "" -f k_ed25519
eval "$(ssh-agent -s)" >/dev/null; ssh-add -q k_ed25519; ssh-add -l | wc -l; ssh-add -T k_ed25519.pub && echo agent; stat -c '%F %a' "$SSH_AUTH_SOCK"; ssh-agent -k >/dev/null; while [ -e "$SSH_AUTH_SOCK" ]; do sleep 0.02; done; ssh-add -l >/dev/null 2>&1; echo "gone $?"
