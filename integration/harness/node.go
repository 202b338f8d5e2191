package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/skshohagmiah/bucketdb/server/api"
)

// Node is a server process and its data directory, which outlives it: after a
// Stop or Kill, Start goes on with the same data at the same address. Not safe
// for concurrent use; the process it runs is, of course.
type Node struct {
	Binary string
	ID     string
	Dir    string   // chunks, metadata and log
	API    string   // host:port
	Peer   string   // where it listens for other nodes, host:port; "": nowhere
	Join   []string // peers whose cluster it joins; none: it founds one
	Secret string   // file of the cluster's secret; "": none is given
	Space  string   // the network namespace that it lives in; "": that of the test
	Args   []string // further flags of bucketdb server
	Env    []string // added to the environment

	proc *process
}

// NewNode describes a node that is not started yet.
func NewNode(binary, dir string, args ...string) (*Node, error) {
	addr, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	return &Node{Binary: binary, ID: "n1", Dir: dir, API: addr, Args: args}, nil
}

// URL is the endpoint.
func (n *Node) URL() string { return "http://" + n.API }

// Metadata is the node's metadata directory.
func (n *Node) Metadata() string { return filepath.Join(n.Dir, "metadata") }

// Storage is the node's chunk directory.
func (n *Node) Storage() string { return filepath.Join(n.Dir, "chunks") }

// Command is the node's command line, not started.
func (n *Node) Command() *exec.Cmd {
	args := []string{n.Binary, "server", "-id", n.ID, "-api", n.API, "-metadata", n.Metadata(), "-storage", n.Storage()}
	switch {
	case len(n.Join) > 0:
		args = append(args, "-join", strings.Join(n.Join, ","))
	case n.Peer != "":
		args = append(args, "-bootstrap=true")
	} // else it is alone and opens no port for others
	if n.Peer != "" {
		args = append(args, "-http", n.Peer)
	}
	if n.Secret != "" {
		args = append(args, "-cluster-secret-file", n.Secret)
	}
	args = append(args, n.Args...)
	if n.Space != "" {
		// nsenter makes way for what it runs: the process is the node's own. Not "ip netns
		// exec", which also gives it a copy of all mounts: a FUSE mount of the test
		// would never end while a node lives.
		args = append([]string{"nsenter", "--net=/var/run/netns/" + n.Space}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), n.Env...)
	return cmd
}

// Start runs the node and returns when it is ready.
func (n *Node) Start(ctx context.Context) error {
	if err := n.Launch(); err != nil {
		return err
	}
	if err := n.Ready(ctx); err != nil {
		return fmt.Errorf("the node is not ready: %w\n%s", err, n.Log(4<<10))
	}
	return nil
}

// Launch runs the node and does not wait.
func (n *Node) Launch() error {
	log, err := os.OpenFile(filepath.Join(n.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := n.Command()
	cmd.Stdout, cmd.Stderr = log, log
	n.proc, err = spawn(cmd)
	return err
}

// Ready waits until the node answers /readyz.
func (n *Node) Ready(ctx context.Context) error {
	c, err := n.Client(api.ClientOptions{Retries: -1, AnswerTimeout: startTime})
	if err != nil {
		return err
	}
	defer c.Close()
	return Poll(ctx, startTime, func() error {
		if gone, err := n.proc.ended(); gone {
			return fmt.Errorf("the process has ended: %w", err)
		}
		return c.Health(ctx, 0)
	})
}

// Client is a client of the node.
func (n *Node) Client(o api.ClientOptions) (*api.Client, error) {
	return api.NewClient([]string{n.URL()}, o)
}

// Stop asks the node to end (SIGTERM) and waits for it; an exit code other than
// 0 is an error.
func (n *Node) Stop() error { return n.proc.end(syscall.SIGTERM, stopTime) }

// Kill ends the node at once (SIGKILL), as a crash would.
func (n *Node) Kill() error {
	err := n.proc.end(syscall.SIGKILL, stopTime)
	if s, ok := n.proc.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("the node ended by itself before it was killed: %w", err)
}

// Running reports whether the process runs.
func (n *Node) Running() bool {
	if n.proc == nil {
		return false
	}
	gone, _ := n.proc.ended()
	return !gone
}

// Wait returns when the process has ended, with how it did.
func (n *Node) Wait(limit time.Duration) error {
	select {
	case <-n.proc.done:
		return n.proc.err
	case <-time.After(limit):
		return fmt.Errorf("the node has not ended within %s", limit)
	}
}

// Pause stops the process in its tracks (SIGSTOP); Resume lets it go on.
func (n *Node) Pause() error { return n.proc.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (n *Node) Resume() error { return n.proc.cmd.Process.Signal(syscall.SIGCONT) }

// PeakMemory is the most memory that the process ever had resident, in bytes.
func (n *Node) PeakMemory() (int64, error) { return procStatus(n.proc.cmd.Process.Pid, "VmHWM:") }

// HeapMemory is the memory that the process has resident now, in bytes, without
// mapped files: Badger's tables are mapped, and the kernel takes their pages back
// when it needs them.
func (n *Node) HeapMemory() (int64, error) { return procStatus(n.proc.cmd.Process.Pid, "RssAnon:") }

// CPUTime is what the process has used of the processors.
func (n *Node) CPUTime() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.proc.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("harness: /proc/PID/stat is %q", raw)
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100
}

func procStatus(pid int, field string) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(raw), field)
	f := strings.Fields(rest)
	if !ok || len(f) == 0 {
		return 0, fmt.Errorf("harness: no %s in /proc/PID/status", field)
	}
	kib, err := strconv.ParseInt(f[0], 10, 64)
	return kib << 10, err
}

// Log is the end of what the node logged, over all its lives.
func (n *Node) Log(last int) string {
	raw, err := os.ReadFile(filepath.Join(n.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-last):])
}

// ChunkBytes is the space that chunk files take.
func (n *Node) ChunkBytes() (int64, error) { return diskUsage(n.Storage()) }
