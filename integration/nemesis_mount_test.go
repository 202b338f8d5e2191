package integration

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/linear"
)

// mounted are clients that work through a mount of all buckets, in a process of its own
// that knows every node. It caches no names and attributes: what a program opens is then
// what the cluster has, and is held to the same model as REST. With a cache it is
// close-to-open, which another mount's changes reach later.
func (r *nemesisRun) mounted(c *harness.Cluster, first, clients, id int, seed uint64) (all []*nemesisClient) {
	dir := filepath.Join(r.t.TempDir(), "mnt")
	m, err := harness.StartMount(r.t.Context(), bin(r.t), strings.Join(c.Endpoints(first), ","), "", dir, "--cache-ttl", "0", "--op-timeout", "20s")
	check(r.t, err)
	r.t.Cleanup(func() {
		if err := m.Detach(); err != nil && !r.t.Failed() {
			r.t.Error(err)
		}
		if r.t.Failed() {
			r.t.Logf("the mount's log:\n%s", m.Log(8<<10))
		}
	})
	for i := range clients {
		cl := &nemesisClient{nemesisRun: r, id: id + i, dir: dir, rng: rand.New(rand.NewPCG(seed, uint64(id+i)))}
		for _, key := range []string{"tmp/x", coded + "tmp/x"} {
			check(r.t, os.MkdirAll(filepath.Dir(cl.path(key)), 0o755))
		}
		all = append(all, cl)
	}
	return all
}

func (c *nemesisClient) path(key string) string { return filepath.Join(c.dir, bucketOf(key), key) }

// workMounted is work for a client on a mount.
func (c *nemesisClient) workMounted(working context.Context, pace time.Duration) {
	for working.Err() == nil {
		key := registerKey(int(c.gen.Load()), c.rng.IntN(registers))
		switch p := c.rng.IntN(100); {
		case p < 45:
			c.open(key)
		case p < 75:
			c.replace(key)
		case p < 85:
			c.unlink(key)
		default:
			c.keepFile()
		}
		select { // not a wait: the load is to leave the machine to the nodes
		case <-working.Done():
		case <-time.After(pace/2 + time.Duration(c.rng.Int64N(int64(pace)))):
		}
	}
}

// errChanged: a file was written while it was read; a program that reads it in
// several pieces may see some of each version.
var errChanged = errors.New("the file changed meanwhile")

// fileResult reads the answer of a system call.
func (r *nemesisRun) fileResult(what string, err error) linear.Output {
	switch {
	case err == nil:
		return linear.Output{Result: linear.OK}
	case errors.Is(err, syscall.ENOENT):
		return linear.Output{Result: linear.Missing}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var no syscall.Errno
	if errors.As(err, &no) {
		r.odd[no.Error()]++
	}
	switch {
	case errors.Is(err, errChanged):
	case no == syscall.EIO, no == syscall.EINTR, no == syscall.ESTALE, no == syscall.EAGAIN, no == syscall.EBUSY, no == syscall.ETIMEDOUT:
	default:
		r.t.Errorf("%s: %v", what, err)
	}
	return linear.Output{Result: linear.Unknown}
}

// open reads a register: the name and the content, as any program does.
func (c *nemesisClient) open(key string) {
	c.h.Do(c.id, linear.Input{Group: key, Verb: linear.Get}, func() linear.Output {
		b, err := readWhole(c.path(key))
		out := c.fileResult("open "+key, err)
		if err == nil {
			out.Value = c.named(sha256.Sum256(b))
		}
		return out
	})
}

// readWhole reads a file that nobody changes meanwhile, or fails with errChanged.
func readWhole(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	changed := func() (size int64, at syscall.Timespec, err error) {
		info, err := f.Stat()
		if err != nil {
			return 0, at, err
		}
		return info.Size(), info.Sys().(*syscall.Stat_t).Ctim, nil
	}
	size, at, err := changed()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if s, now, err := changed(); err != nil || s != size || now != at || int64(len(b)) != size {
		return nil, errors.Join(errChanged, err)
	}
	return b, nil
}

// replace writes a register as programs replace a file: whole under another name, then
// the rename, which is the step that the model sees.
func (c *nemesisClient) replace(key string) {
	value, b := c.value()
	tmp := c.path(fmt.Sprintf("%stmp/%d-%s", strings.Repeat(coded, strings.Count(key, coded)), c.id, value))
	err := errors.Join(os.MkdirAll(filepath.Dir(c.path(key)), 0o755), os.WriteFile(tmp, b, 0o644))
	if err != nil {
		c.fileResult("write "+tmp, err)
		return
	}
	c.h.Do(c.id, linear.Input{Group: key, Verb: linear.Put, Value: value}, func() linear.Output {
		// Not os.Rename: that repeats a call which a signal cut short, though it may have happened.
		out := c.fileResult("rename "+tmp, syscall.Rename(tmp, c.path(key)))
		if out.Result == linear.Missing { // the directory went with its last name
			out.Result = linear.Unknown
		}
		return out
	})
}

func (c *nemesisClient) unlink(key string) {
	c.h.Do(c.id, linear.Input{Group: key, Verb: linear.Delete}, func() linear.Output {
		return c.fileResult("unlink "+key, syscall.Unlink(c.path(key)))
	})
}

// keepFile is keep: a file that was closed without an error is there for ever.
func (c *nemesisClient) keepFile() {
	value, b := c.value()
	key := fmt.Sprintf("%skeep/%d/%s", marked(c.rng.IntN(2)), c.id, value)
	c.mu.Lock()
	c.tried[key] = true
	c.mu.Unlock()
	if err := errors.Join(os.MkdirAll(filepath.Dir(c.path(key)), 0o755), os.WriteFile(c.path(key), b, 0o644)); err != nil {
		c.fileResult("write "+key, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[key] = value
}

// lastMounted reads all registers once more; the cluster is whole, so it must be possible.
func (c *nemesisClient) lastMounted(t testing.TB) {
	for gen := range int(c.gen.Load()) + 1 {
		for k := range registers {
			key := registerKey(gen, k)
			if _, err := os.Stat(c.path(key)); err != nil && !errors.Is(err, syscall.ENOENT) {
				t.Errorf("%s: %v", key, err)
			}
			c.open(key)
		}
	}
}
