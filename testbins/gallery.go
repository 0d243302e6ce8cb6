// A Go program: many goroutines and threads, preemption signals, pipes, HTTP over loopback, children, files, timers.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// Loops without a call can only be stopped by the scheduler's signals.
func preemption() {
	var stop int32
	for i := 0; i < 4; i++ {
		go func() {
			n := 0
			for atomic.LoadInt32(&stop) == 0 {
				n++
			}
		}()
	}
	for i := 0; i < 5; i++ {
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
	atomic.StoreInt32(&stop, 1)
	fmt.Println("preempted")
}

func threads() {
	var group sync.WaitGroup
	var sum int64
	for i := 0; i < 200; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			runtime.LockOSThread()
			info, err := os.Stat("/etc/passwd")
			must(err)
			_ = info
			atomic.AddInt64(&sum, int64(i))
		}(i)
	}
	group.Wait()
	fmt.Println("threads", sum)
}

func web() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d", r.URL.Path, len(body))
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	server := http.Server{Handler: mux}
	go server.Serve(listener)
	var group sync.WaitGroup
	answers := make([]string, 64)
	for i := range answers {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			r, err := http.Post(fmt.Sprintf("http://%s/%02d", listener.Addr(), i), "x", strings.NewReader(strings.Repeat("y", i*999)))
			must(err)
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			answers[i] = string(b)
		}(i)
	}
	group.Wait()
	sort.Strings(answers)
	fmt.Println(answers[0], answers[63])
	server.Shutdown(context.Background())
	unix, err := net.Listen("unix", "go.sock")
	must(err)
	go func() { c, _ := unix.Accept(); io.WriteString(c, "over unix"); c.Close() }()
	c, err := net.Dial("unix", "go.sock")
	must(err)
	b, _ := io.ReadAll(c)
	fmt.Println(string(b))
	unix.Close()
	_, err = os.Stat("go.sock")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
}

func children() {
	var group sync.WaitGroup
	var ended int64
	for i := 0; i < 40; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			c := exec.Command("sh", "-c", fmt.Sprintf("cat; exit %d", i))
			c.Stdin = bytes.NewReader(make([]byte, i*1000))
			out, _ := c.Output()
			if len(out) == i*1000 && c.ProcessState.ExitCode() == i {
				atomic.AddInt64(&ended, 1)
			}
		}(i)
	}
	group.Wait()
	fmt.Println("children", ended)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	fmt.Println(exec.CommandContext(ctx, "sleep", "9").Run())
	c := exec.Command("pwd")
	c.Dir = "/usr"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := c.Output()
	fmt.Println(strings.TrimSpace(string(out)), err)
	fmt.Println(exec.Command("/none").Run(), exec.Command("/etc/passwd").Run())
}

func files() {
	must(os.MkdirAll("d/e/f", 0o750))
	for i := 0; i < 100; i++ {
		must(os.WriteFile(fmt.Sprintf("d/e/%03d", i), make([]byte, i), 0o644))
	}
	h, n := sha256.New(), 0
	must(filepath.WalkDir("d", func(p string, d fs.DirEntry, err error) error { n++; io.WriteString(h, p); return err }))
	fmt.Printf("%d %x\n", n, h.Sum(nil)[:4])
	must(os.Rename("d/e", "d/g"))
	must(os.Symlink("g/050", "d/l"))
	info, err := os.Stat("d/l")
	must(err)
	fmt.Println(info.Size(), info.Mode())
	f, err := os.OpenFile("d/o", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	must(err)
	f.WriteAt([]byte("x"), 5000)
	must(f.Truncate(6000))
	must(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	m, err := syscall.Mmap(int(f.Fd()), 0, 6000, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(err)
	fmt.Println(m[5000])
	src, _ := os.Open("/usr/bin/env")
	copied, err := io.Copy(f, src)
	fmt.Println(copied > 0, err)
	must(os.RemoveAll("d"))
	_, err = os.ReadDir("d")
	fmt.Println(err)
	t, err := os.CreateTemp("", "go")
	must(err)
	os.Remove(t.Name())
	wd, _ := os.Getwd()
	u, err := user.Current()
	must(err)
	fmt.Println(wd != "", u.Uid == fmt.Sprint(os.Getuid()), runtime.NumCPU() > 0)
}

func main() {
	preemption()
	threads()
	web()
	children()
	files()
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-got)
	ticker, n := time.NewTicker(time.Millisecond), 0
	for range ticker.C {
		if n++; n == 20 {
			break
		}
	}
	fmt.Println("ticks", n)
	defer fmt.Println("deferred")
	defer func() { fmt.Println("recovered", recover()); os.Exit(5) }()
	var p *int
	fmt.Println(*p)
}
