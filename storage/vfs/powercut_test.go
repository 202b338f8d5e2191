package vfs

import (
	"errors"
	"io/fs"
	"math/rand"
	"os"
	"strings"
	"testing"
)

func newDisk(t *testing.T) *PowerCut {
	p := NewPowerCut()
	must(t, p.MkdirAll("mk", "/d", 0o755))
	must(t, p.SyncDir("sd", "/"))
	return p
}

func TestCrashDropsTheUnsynced(t *testing.T) {
	p := newDisk(t)
	f := put(t, p, "/d/a", "safe")
	must(t, f.Sync("s"))
	must(t, p.SyncDir("sd", "/d"))
	_, err := f.Write([]byte(" lost"))
	must(t, err)
	must(t, put(t, p, "/d/nameless", "x").Sync("s")) // its name is not synced
	next := p.Crash(nil)
	if got := get(t, next, "/d/a"); got != "safe" {
		t.Fatalf("a = %q", got)
	}
	if exists(next, "/d/nameless") {
		t.Fatal("an unsynced name survived")
	}
	_, err = f.Write([]byte("x"))
	want(t, err, ErrPowerCut)
	want(t, f.Sync("s"), ErrPowerCut)
	_, err = p.Stat("st", "/d")
	want(t, err, ErrPowerCut)
}

func TestCrashKeepsSomeOutcome(t *testing.T) {
	seen := map[string]bool{}
	for seed := range int64(300) {
		p := newDisk(t)
		f := put(t, p, "/d/a", "0000")
		must(t, f.Sync("s"))
		must(t, p.SyncDir("sd", "/d"))
		_, err := f.WriteAt([]byte("11"), 0)
		must(t, err)
		_, err = f.WriteAt([]byte("22"), 4)
		must(t, err)
		seen[get(t, p.Crash(rand.New(rand.NewSource(seed))), "/d/a")] = true
	}
	for _, outcome := range []string{"0000", "1100", "1000", "000022", "110022", "00002", "0000\x00\x00"} {
		if !seen[outcome] {
			t.Errorf("%q never seen in %v", outcome, seen)
		}
	}
	for outcome := range seen {
		if !strings.HasPrefix(outcome[2:], "00") {
			t.Errorf("impossible outcome %q", outcome)
		}
	}
}

func TestCrashKeepsAPrefixOfDirectoryChanges(t *testing.T) {
	seen := map[string]bool{}
	for seed := range int64(200) {
		p := newDisk(t)
		put(t, p, "/d/1", "")
		put(t, p, "/d/2", "")
		must(t, p.Rename("mv", "/d/1", "/d/3"))
		must(t, p.Remove("rm", "/d/2"))
		list, err := p.Crash(rand.New(rand.NewSource(seed))).ReadDir("ls", "/d")
		must(t, err)
		names := ""
		for _, e := range list {
			names += e.Name()
		}
		seen[names] = true
	}
	if len(seen) != 5 { // as many as prefixes
		t.Fatalf("outcomes %v", seen)
	}
	for _, names := range []string{"", "1", "12", "23", "3"} {
		if !seen[names] {
			t.Errorf("%q never seen", names)
		}
	}
}

func TestCrossingRenameLosesNoName(t *testing.T) {
	for seed := range int64(300) {
		p := newDisk(t)
		must(t, p.MkdirAll("mk", "/e", 0o755))
		must(t, p.SyncDir("sd", "/"))
		must(t, put(t, p, "/d/a", "x").Sync("s"))
		must(t, p.SyncDir("sd", "/d"))
		must(t, p.Rename("mv", "/d/a", "/e/a"))
		if seed%3 == 0 {
			must(t, p.SyncDir("sd", "/d"))
		}
		next := p.Crash(rand.New(rand.NewSource(seed)))
		if !exists(next, "/d/a") && !exists(next, "/e/a") {
			t.Fatalf("seed %d: both names lost", seed)
		}
	}
}

func TestCutAtEachCall(t *testing.T) {
	script := func(p *PowerCut) error {
		if err := p.MkdirAll("mkdir", "/d", 0o755); err != nil {
			return err
		}
		f, err := p.OpenFile("open", "/d/a", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte("x")); err != nil {
			return err
		}
		if err := f.Sync("sync"); err != nil {
			return err
		}
		return p.SyncDir("syncdir", "/d")
	}
	dry := NewPowerCut()
	hooked := 0
	dry.OnOp(func(call int, op Op, _ string) {
		hooked++
		if call != hooked || dry.Calls()[call-1] != op {
			t.Errorf("hook saw call %d %q", call, op)
		}
	})
	must(t, script(dry))
	calls := dry.Calls()
	if got := len(calls); got != 5 || calls[2] != WriteOp("open") || hooked != 5 {
		t.Fatalf("calls %v", calls)
	}
	for n := 1; n <= len(calls); n++ {
		p := NewPowerCut()
		p.CutAt(n)
		want(t, script(p), ErrPowerCut)
		want(t, p.MkdirAll("mk", "/z", 0o755), ErrPowerCut)
		if got := len(p.Calls()); got != n {
			t.Fatalf("cut at %d after %d calls", n, got)
		}
		if exists(p.Crash(nil), "/d") { // the script never syncs the root
			t.Fatal("an unsynced directory survived")
		}
		p.Crash(rand.New(rand.NewSource(int64(n)))) // another outcome of the same moment
	}
}

func TestCrashFreesLocksAndBootsAgain(t *testing.T) {
	p := newDisk(t)
	_, err := p.Lock("lock", "/d/L")
	must(t, err)
	p = p.Crash(nil)
	_, err = p.Lock("lock", "/d/L")
	must(t, err)
	must(t, put(t, p, "/d/a", "x").Sync("s"))
	must(t, p.SyncDir("sd", "/d"))
	if get(t, p.Crash(nil).Crash(nil), "/d/a") != "x" {
		t.Fatal("a second boot lost what was durable")
	}
	_, err = NewPowerCut().ReadDir("ls", "/nowhere")
	want(t, err, fs.ErrNotExist)
}

func TestDiscardedDiskHoldsNothing(t *testing.T) {
	p := NewPowerCut()
	f, err := p.OpenFile("test", "/f", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	n := p.root.entries["f"]
	p.Discard()
	if n.data != nil || n.pending != nil || len(p.root.entries) != 0 {
		t.Errorf("%+v in %+v", n, p.root)
	}
	if _, err := f.ReadAt(make([]byte, 5), 0); !errors.Is(err, ErrPowerCut) {
		t.Errorf("an open file: %v", err)
	}
	if _, err := p.Stat("test", "/f"); !errors.Is(err, ErrPowerCut) {
		t.Errorf("its name: %v", err)
	}
}
