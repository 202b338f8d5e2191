package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
)

// place is a directory to run the same jobs in.
type place struct {
	name string
	dir  string
	cold func() error // forget caches of this place, beside the kernel's
	took map[string]time.Duration
}

// job is one thing to time. Its script gets the place as $1, the source tree as
// $2 and the size of the large file in MiB as $3.
type job struct {
	name, script string
	cold         bool
	goal         string
}

func jobs() []job {
	return []job{
		{name: "cp -a of the Go tree", script: `cp -a "$2" "$1/tree"`, goal: "15s"},
		{name: "find, cold", script: `find "$1/tree" -printf '%s' >/dev/null`, cold: true, goal: "0.5s"},
		{name: "find, warm", script: `find "$1/tree" -printf '%s' >/dev/null`},
		{name: "tar, cold", script: `tar -cf - -C "$1" tree | cat >/dev/null`, cold: true, goal: "5s"},
		{name: "rm -rf", script: `rm -rf "$1/tree"`, goal: "6s"},
		{name: "sequential write + fsync", script: `dd if=/dev/zero of="$1/big" bs=1M count="$3" conv=fsync status=none`},
		{name: "sequential read, cold", script: `dd if="$1/big" of=/dev/null bs=1M status=none`, cold: true},
	}
}

// mounts measures the mount beside the disk's own filesystem and go-fuse's loopback.
func (b *bench) mounts() (err error) {
	src, err := b.tree()
	if err != nil {
		return err
	}
	bare, err := b.sub("bare")
	if err != nil {
		return err
	}
	looped, err := b.sub("loopback")
	if err != nil {
		return err
	}
	stop, err := startLoopback(b.ctx, looped)
	if err != nil {
		return err
	}
	defer stop()
	ours, detach, err := b.ourMount()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, detach()) }()
	places := []*place{ours, {name: "loopback", dir: filepath.Join(looped, "mnt")}, {name: "the disk's filesystem", dir: bare}}
	mib := 256
	if b.full {
		mib = 1024
	}
	for _, j := range jobs() {
		for _, p := range places {
			if err := b.time(j, p, src, mib); err != nil {
				return fmt.Errorf("%s on %s: %w", j.name, p.name, err)
			}
		}
		for _, p := range places[1:] {
			b.times(j.name, ours.took[j.name], p.took[j.name], p.name, j.goal)
		}
	}
	return nil
}

// ourMount is a fresh node's bucket, mounted. Its cold is a new mount process.
func (b *bench) ourMount() (*place, func() error, error) {
	n, err := b.start("mounted")
	if err != nil {
		return nil, nil, err
	}
	if _, err := ask(browser(), "POST", n.URL()+"/buckets", []byte(`{"name":"bench"}`)); err != nil {
		return nil, nil, errors.Join(err, n.Kill())
	}
	dir := filepath.Join(b.dir, "ours")
	m, err := harness.StartMount(b.ctx, b.binary, n.URL(), "bench", dir, "--log-level", "warn")
	if err != nil {
		return nil, nil, errors.Join(err, n.Kill())
	}
	p := &place{name: "bucketdb", dir: dir}
	p.cold = func() error {
		if err := m.Unmount(); err != nil {
			return err
		}
		again, err := harness.StartMount(b.ctx, b.binary, n.URL(), "bench", dir, "--log-level", "warn")
		if err == nil {
			m = again
		}
		return err
	}
	return p, func() error { return errors.Join(m.Detach(), n.Kill()) }, nil
}

// tree is the Go source tree, all of it or a part, on the disk to measure.
func (b *bench) tree() (string, error) {
	out, err := exec.CommandContext(b.ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	part := "net"
	if b.full {
		part = "."
	}
	dir := filepath.Join(b.dir, "src")
	return dir, exec.CommandContext(b.ctx, "cp", "-a", filepath.Join(strings.TrimSpace(string(out)), "src", part), dir).Run()
}

// time runs a job in a place. Dirty pages of what came before are written first.
func (b *bench) time(j job, p *place, src string, mib int) error {
	if err := exec.CommandContext(b.ctx, "sync").Run(); err != nil {
		return err
	}
	if j.cold {
		if p.cold != nil {
			if err := p.cold(); err != nil {
				return err
			}
		}
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return fmt.Errorf("cold needs root: %w", err)
		}
	}
	cmd := exec.CommandContext(b.ctx, "bash", "-euo", "pipefail", "-c", j.script, "bench", p.dir, src, fmt.Sprint(mib))
	cmd.Stderr = os.Stderr
	start := time.Now()
	err := cmd.Run()
	if p.took == nil {
		p.took = map[string]time.Duration{}
	}
	p.took[j.name] = time.Since(start)
	return err
}
