"""python3: threads, subprocesses, asyncio, multiprocessing, sqlite3, mmap, and what lies between."""
import asyncio, concurrent.futures, ctypes, fcntl, glob, mmap, multiprocessing as mp, os, pathlib, queue, select, selectors, shutil
import signal, socket, sqlite3, stat, subprocess, sys, tempfile, threading, time, zipfile, tarfile, resource, pty, errno
from multiprocessing import shared_memory

def show(*what): print(*what, flush=True)

def threads():
    q, out, lock = queue.Queue(), [], threading.Lock()
    def work():
        while (n := q.get()) is not None:
            with lock: out.append(n * n)
    workers = [threading.Thread(target=work) for _ in range(16)]
    for t in workers: t.start()
    for n in range(2000): q.put(n)
    for _ in workers: q.put(None)
    for t in workers: t.join()
    show("threads", sum(out), threading.active_count())
    barrier = threading.Barrier(8); done = []
    def meet(): barrier.wait(); done.append(1)
    for t in [threading.Thread(target=meet) for _ in range(8)]: t.start()
    while len(done) < 8: time.sleep(0.01)
    # A child made while many threads run, each of which opens files.
    stop = threading.Event()
    def opener():
        while not stop.is_set(): open("/etc/passwd").close(); os.stat("/usr")
    noise = [threading.Thread(target=opener) for _ in range(4)]
    for t in noise: t.start()
    show("children", [subprocess.run(["sh", "-c", f"exit {n}"]).returncode for n in range(10)])
    stop.set()
    for t in noise: t.join()

def subprocesses():
    r = subprocess.run(["tr", "a-z", "A-Z"], input=b"input\n" * 50000, capture_output=True); show(len(r.stdout), r.stdout[:6])
    p = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd="/usr", umask=0o77, close_fds=True); show(p.communicate("talk")[0], p.returncode)
    a = subprocess.Popen(["seq", "100000"], stdout=subprocess.PIPE); b = subprocess.Popen(["tail", "-n", "1"], stdin=a.stdout, stdout=subprocess.PIPE); a.stdout.close(); show(b.communicate()[0])
    try: subprocess.run(["sleep", "10"], timeout=0.2)
    except subprocess.TimeoutExpired: show("timeout")
    for bad in (["/none"], ["/etc/passwd"], ["/"]):
        try: subprocess.run(bad)
        except OSError as e: show(type(e).__name__, e.errno)
    p = subprocess.Popen(["sleep", "10"]); p.send_signal(signal.SIGTERM); show(p.wait())
    r, w = os.pipe(); os.set_inheritable(w, True); subprocess.run(["sh", "-c", f"echo fd >&{w}"], pass_fds=[w]); show(os.read(r, 10))
    show(subprocess.getoutput("echo $0"), os.system("exit 3") >> 8, os.popen("echo p").read().strip())
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "echo spawned; exit 4"], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "spawned", os.O_CREAT | os.O_WRONLY, 0o600)], setpgroup=0, setsigdef=[signal.SIGPIPE]); show(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), open("spawned").read())
    pid, fd = pty.fork()
    if pid == 0: os.execvp("sh", ["sh", "-c", "tty | cut -c1-9; stty size; echo $(ps -o tpgid= -p $$) | grep -c ."])
    text = b""
    while True:
        try: part = os.read(fd, 100)
        except OSError: break
        text += part
        if not part: break
    os.waitpid(pid, 0); show(text)
    fd = os.pidfd_open(pid := subprocess.Popen(["sleep", "9"]).pid); signal.pidfd_send_signal(fd, signal.SIGKILL); select.select([fd], [], []); show(os.waitid(os.P_PIDFD, fd, os.WEXITED).si_status)

async def loops():
    p = await asyncio.create_subprocess_shell("read x; echo got $x; exit 5", stdin=-1, stdout=-1); out, _ = await p.communicate(b"line\n"); show(out, p.returncode)
    async def serve(r, w): w.write((await r.readline()).upper()); await w.drain(); w.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0); port = server.sockets[0].getsockname()[1]
    async def ask(n):
        r, w = await asyncio.open_connection("127.0.0.1", port); w.write(b"ask %d\n" % n); answer = await r.read(); w.close(); return answer
    show(sorted(await asyncio.gather(*map(ask, range(100))))[-1]); server.close()
    unix = await asyncio.start_unix_server(serve, "unix.sock"); r, w = await asyncio.open_unix_connection("unix.sock"); w.write(b"unix\n"); show(await r.read()); w.close(); unix.close()
    loop = asyncio.get_running_loop(); got = loop.create_future(); loop.add_signal_handler(signal.SIGUSR1, got.set_result, "signal"); os.kill(os.getpid(), signal.SIGUSR1); show(await got)
    show(await asyncio.to_thread(os.path.getsize, "/etc/passwd") > 0, [await p.wait() for p in await asyncio.gather(*(asyncio.create_subprocess_exec("true") for _ in range(10)))])

def square(n): return n * n
def fill(name): s = shared_memory.SharedMemory(name); s.buf[:4] = b"done"; s.close()
def talk(c): c.send(c.recv() + [os.getppid() > 1]); c.close()
def count(v, lock):
    for _ in range(500):
        with lock: v.value += 1

def processes():
    for method in ("fork", "spawn", "forkserver"):
        ctx = mp.get_context(method)
        with ctx.Pool(4) as pool: show(method, sum(pool.map(square, range(1000))))
        a, b = ctx.Pipe(); p = ctx.Process(target=talk, args=(b,)); p.start(); a.send([1, "x"]); show(a.recv()); p.join(); show(p.exitcode)
        v, lock = ctx.Value("i", 0), ctx.Lock(); ps = [ctx.Process(target=count, args=(v, lock)) for _ in range(4)]; [p.start() for p in ps]; [p.join() for p in ps]; show(v.value)
        s = shared_memory.SharedMemory(create=True, size=100); p = ctx.Process(target=fill, args=(s.name,)); p.start(); p.join(); show(bytes(s.buf[:4]), os.path.exists("/dev/shm/" + s.name)); s.close(); s.unlink()
        q = ctx.Queue(); p = ctx.Process(target=q.put, args=("queued" * 20000,)); p.start(); show(len(q.get())); p.join()
    with concurrent.futures.ProcessPoolExecutor(3) as ex: show(list(ex.map(square, range(5))))
    with mp.Manager() as m: d = m.dict(a=1); d["b"] = 2; show(sorted(d.items()))

def databases():
    db = sqlite3.connect("db", timeout=10); show(db.execute("pragma journal_mode=wal").fetchone()); db.execute("create table t(a integer primary key, b)"); db.commit()
    def insert(): 
        c = sqlite3.connect("db", timeout=30)
        for n in range(50):
            with c: c.execute("insert into t(b) values(?)", (n,))
        c.close()
    ts = [threading.Thread(target=insert) for _ in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]
    pid = os.fork()
    if pid == 0: insert(); os._exit(0)
    os.waitpid(pid, 0); show(db.execute("select count(*), sum(b) from t").fetchone(), db.execute("pragma integrity_check").fetchone()); db.close(); show(sorted(glob.glob("db*")))

def maps():
    with open("m", "w+b") as f:
        f.truncate(1 << 20); m = mmap.mmap(f.fileno(), 0); m[5:9] = b"text"; m.flush(); f.seek(5); show(f.read(4)); pid = os.fork()
        if pid == 0: m[0:1] = b"c"; os._exit(0)
        os.waitpid(pid, 0); show(m[0:1], m.find(b"text")); m.resize(2 << 20); show(os.path.getsize("m")); m.close()
    a = mmap.mmap(-1, 4096); pid = os.fork()
    if pid == 0: a[:3] = b"kid"; os._exit(0)
    os.waitpid(pid, 0); show(a[:3]); fd = os.memfd_create("x", os.MFD_ALLOW_SEALING); os.write(fd, b"1234"); fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    try: os.ftruncate(fd, 1)
    except OSError as e: show(errno.errorcode[e.errno])
    show(open(f"/proc/self/fd/{fd}").read())

def files():
    p = pathlib.Path("tree"); (p / "a/b").mkdir(parents=True); (p / "a/f").write_text("x" * 10); (p / "l").symlink_to("a/f"); os.link(p / "a/f", p / "h"); show(sorted(map(str, p.rglob("*"))), (p / "l").resolve().name, (p / "h").stat().st_nlink)
    shutil.copytree(p, "copy", symlinks=True); shutil.make_archive("arc", "gztar", "copy"); shutil.unpack_archive("arc.tar.gz", "un"); show(sorted(os.listdir("un")), shutil.disk_usage(".").total > 0); shutil.rmtree("copy")
    fd = os.open("tree", os.O_DIRECTORY); show(os.stat("h", dir_fd=fd).st_size, sorted(os.listdir(fd))); os.rename("h", "h2", src_dir_fd=fd, dst_dir_fd=fd); os.close(fd); show([e.name for e in sorted(os.scandir("tree"), key=lambda e: e.name) if e.is_file()])
    os.setxattr("spawned", "user.k", b"v"); show(os.listxattr("spawned"), os.getxattr("spawned", "user.k")); f = open("lk", "w"); fcntl.lockf(f, fcntl.LOCK_EX)
    if (pid := os.fork()) == 0:
        try: fcntl.lockf(open("lk", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e: show(errno.errorcode[e.errno])
        os._exit(0)
    os.waitpid(pid, 0); i, o = open("/usr/bin/env", "rb"), open("copied", "wb"); n = os.fstat(i.fileno()).st_size; show(os.sendfile(o.fileno(), i.fileno(), 0, n) == n); o.close(); a, b = os.open("copied", os.O_RDONLY), os.open("c2", os.O_CREAT | os.O_RDWR); show(os.copy_file_range(a, b, n) == n, os.posix_fallocate(b, 0, 1 << 20), os.fstat(b).st_size); r, w = os.pipe(); show(os.splice(a, w, 100, offset_src=0), len(os.read(r, 200)))
    with tempfile.TemporaryFile() as t: t.write(b"x"); show(os.fstat(t.fileno()).st_nlink)
    os.chmod("c2", 0o4755); os.utime("c2", ns=(1, 2)); s = os.stat("c2"); show(stat.filemode(s.st_mode), s.st_mtime_ns, os.access("c2", os.X_OK), os.statvfs(".").f_namemax, os.getcwd() == os.path.realpath("."), os.pathconf(".", "PC_NAME_MAX"))
    os.mkfifo("ff"); threading.Thread(target=lambda: open("ff", "w").write("fifo")).start(); show(open("ff").read()); show(os.get_terminal_size.__name__, os.cpu_count() == len(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_CORE)[0] >= 0, os.uname().sysname)

def sockets():
    a, b = socket.socketpair(); socket.send_fds(a, [b"f"], [os.open("/etc/hostname", os.O_RDONLY)]); _, fds, _, _ = socket.recv_fds(b, 10, 4); show(len(fds), len(os.read(fds[0], 100)) > 0)
    s = socket.socket(socket.AF_UNIX); s.bind("\0abstract-of-test"); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect("\0abstract-of-test"); show(s.accept()[0].getsockname()); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0)); u.sendto(b"udp", u.getsockname()); show(u.recvfrom(10)[0]); show(socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])
    s6 = socket.create_server(("::1", 0), family=socket.AF_INET6); show(socket.create_connection(s6.getsockname()[:2]).getpeername()[0]); e = select.epoll(); e.register(u, select.EPOLLIN); u.sendto(b"again", u.getsockname()); show(len(e.poll(1)), sorted(n for _, n in socket.if_nameindex())[0:0])
    try: socket.create_connection(("127.0.0.1", 1))
    except OSError as x: show(errno.errorcode[x.errno])

def signals():
    got = []; signal.signal(signal.SIGALRM, lambda *_: got.append("alrm")); signal.setitimer(signal.ITIMER_REAL, 0.05); signal.pause(); show(got); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.kill(os.getpid(), signal.SIGUSR2); show(signal.sigpending(), signal.sigtimedwait([signal.SIGUSR2], 1).si_signo == signal.SIGUSR2)
    r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w); signal.raise_signal(signal.SIGALRM); show(os.read(r, 1) == bytes([signal.SIGALRM])); signal.set_wakeup_fd(-1)
    t = threading.Thread(target=time.sleep, args=(0.1,)); t.start(); signal.pthread_kill(threading.get_ident(), signal.SIGALRM); t.join(); show(got)

if __name__ == "__main__":
    threads(); subprocesses(); asyncio.run(loops()); processes(); databases(); maps(); files(); sockets(); signals(); sys.exit(3)
