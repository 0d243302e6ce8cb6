// The Go runtime in a layer: goroutines, files, child processes, signals, timers, the network.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) > 1 {
		input, _ := io.ReadAll(os.Stdin)
		fmt.Printf("child %q %q %s\n", os.Args[1:], input, os.Getenv("FROM_PARENT"))
		os.Exit(3)
	}
	must(os.Mkdir("std-go", 0o755))
	must(os.Chdir("std-go"))
	must(os.MkdirAll("a/b/c", 0o755))
	must(os.WriteFile("a/b/c/f", []byte("contents"), 0o640))
	must(os.Symlink("b/c/f", "a/l"))
	filepath.Walk(".", func(path string, info os.FileInfo, err error) error {
		fmt.Println(path, info.Mode())
		return err
	})
	data, err := os.ReadFile("a/l")
	fmt.Printf("%s %v\n", data, err)
	_, err = os.ReadFile("none")
	fmt.Println(os.IsNotExist(err))

	var group sync.WaitGroup
	var lock sync.Mutex
	var results []int
	for i := 0; i < 200; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			name := fmt.Sprintf("f%d", i)
			must(os.WriteFile(name, []byte(name), 0o644))
			back, err := os.ReadFile(name)
			must(err)
			must(os.Remove(name))
			lock.Lock()
			results = append(results, len(back))
			lock.Unlock()
		}(i)
	}
	group.Wait()
	sort.Ints(results)
	fmt.Println(len(results), results[0], results[199])

	self, err := os.Executable()
	must(err)
	command := exec.Command(self, "one", "two words")
	command.Stdin = strings.NewReader("input")
	command.Env = []string{"FROM_PARENT=yes"}
	out, err := command.Output()
	fmt.Printf("%s%v\n", out, err)
	total := 0
	for i := 0; i < 20; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			err := exec.Command(self, "x").Run()
			lock.Lock()
			defer lock.Unlock()
			if e, ok := err.(*exec.ExitError); ok {
				total += e.ExitCode()
			}
		}()
	}
	group.Wait()
	fmt.Println("total", total)
	fmt.Println(exec.Command("./none").Run())

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	must(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	fmt.Println(<-signals)
	start := time.Now()
	<-time.After(20 * time.Millisecond)
	fmt.Println(time.Since(start) >= 20*time.Millisecond)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you asked for %s\n", r.URL.Path)
	}))
	for i := 0; i < 10; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			response, err := http.Get("http://" + listener.Addr().String() + "/page")
			must(err)
			body, _ := io.ReadAll(response.Body)
			if string(body) != "you asked for /page\n" {
				fmt.Printf("bad %q\n", body)
			}
		}()
	}
	group.Wait()
	unix, err := net.Listen("unix", "socket")
	must(err)
	go func() {
		c, err := unix.Accept()
		must(err)
		io.WriteString(c, "over unix")
		c.Close()
	}()
	c, err := net.Dial("unix", "socket")
	must(err)
	text, _ := io.ReadAll(c)
	fmt.Println(string(text))
}
