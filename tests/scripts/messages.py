"""A syslog daemon on a datagram socket and a service manager's notification socket, with the programs that
talk to them: logger, python's handler, the C library's syslog(3), systemd-notify."""
import array
import logging
import logging.handlers
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys

sys.stdout.reconfigure(line_buffering=True)
MSG_DONTWAIT, MSG_NOSIGNAL = socket.MSG_DONTWAIT, socket.MSG_NOSIGNAL
CREDENTIALS = struct.Struct("3i")


def bound(path, passes=False):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    if passes:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return s


def receive(s, who=None):
    """One message: its text, the sender's name, whether `who` sent it, and files that came along."""
    if not select.select([s], [], [], 20)[0]:
        return "nothing came"
    data, control, _, address = s.recvmsg(65536, 4096)
    text = re.sub(r"\w{3} [ \d]\d \d\d:\d\d:\d\d", "DATE", data.decode())
    text = re.sub(r"\[\d+\]", "[PID]", text)
    seen = [repr(text), repr(address)]
    for _, kind, piece in control:
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, gid = CREDENTIALS.unpack(piece)
            # Where an ordinary user runs Duet, the kernel takes nobody's word for another process.
            if os.getuid() == 0:
                seen.append(f"{'right' if pid == who else 'another'} process {uid}:{gid}")
        elif kind == socket.SCM_RIGHTS:
            fds = array.array("i", piece)
            seen += [os.pread(fd, 100, 0).decode() for fd in fds]
            for fd in fds:
                os.close(fd)
    return " ".join(seen)


# The daemon, and those who log.
path = sys.argv[1] if len(sys.argv) > 1 else "log"
log = bound(path, passes=True)
os.chmod(path, 0o666)
where = [] if path == "/dev/log" else ["-u", path]
logger = subprocess.Popen(["logger", *where, "-t", "shell", "-p", "user.notice", "from logger"])
print("logger", receive(log, logger.pid), logger.wait())
logger = subprocess.Popen(["logger", *where, "-i", "-t", "shell", "-p", "mail.err", "with its number"])
print("logger -i", receive(log, logger.pid), logger.wait())
handler = logging.handlers.SysLogHandler(path, logging.handlers.SysLogHandler.LOG_LOCAL3)
python = logging.getLogger("python")
python.addHandler(handler)
python.warning("from python: %s", "ä" * 3)
print("handler", receive(log, os.getpid()))
python.error("x" * 30000)
print("long", len(receive(log, os.getpid())))
if path == "/dev/log":
    import syslog
    syslog.openlog("libc", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ALERT, "from the C library")
    print("syslog", receive(log, os.getpid()))
# It is restarted.
log.close()
os.unlink(path)
log = bound(path, passes=True)
python.warning("after a restart")
print("handler", receive(log, os.getpid()))
log.close()

# The service manager, and what it has started.
notify = bound("notify", passes=True)
os.environ["NOTIFY_SOCKET"] = os.path.abspath("notify")
if len(os.environ["NOTIFY_SOCKET"]) < 100 and shutil.which("systemd-notify"):
    command = subprocess.Popen(["systemd-notify", "--no-block", "--status=working", "X=1"])
    print("systemd-notify", receive(notify, command.pid), command.wait())
service = os.fork()
if service == 0:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    own = CREDENTIALS.pack(os.getpid(), os.getuid(), os.getgid())
    stored = open("stored", "w+")
    stored.write("kept for a restart")
    stored.flush()
    rights = array.array("i", [stored.fileno()])
    s.sendmsg([b"READY=1\n", b"MAINPID=", b"1"], [], MSG_NOSIGNAL, "notify")
    s.sendmsg([b"STATUS=credentials"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, own)], MSG_NOSIGNAL, "notify")
    s.sendmsg([b"FDSTORE=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),
                               (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, own)], MSG_NOSIGNAL, "notify")
    s.sendmsg([b"STOPPING=1"], [], 0, "./notify")
    named = bound("service")
    named.sendto(b"WATCHDOG=1", "notify")
    print("answer", named.recvfrom(100))
    os._exit(0)
for _ in range(4):
    print("notified", receive(notify, service))
data, _, _, address = notify.recvmsg(100, 100)
print("notified", data, address)
notify.sendto(b"ping", address)
print("ended", os.waitstatus_to_exitcode(os.waitpid(service, 0)[1]))

# Nobody listens, or the queue is full.
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.close()
for target in "notify", "nowhere", ".":
    try:
        s.sendmsg([b"x"], [], 0, target)
    except OSError as e:
        print(target, e.__class__.__name__, e.errno)
full = bound("full")
try:
    while True:
        s.sendmsg([b"x"], [], MSG_DONTWAIT, "full")
except BlockingIOError as e:
    print("full", e.errno)
for name in "log", "notify", "full", "service":
    if os.path.lexists(name):
        print(name, oct(os.lstat(name).st_mode))
print("done")
