package vfs

import (
	"io"
	"io/fs"
	"sync"
)

// AnyOp is the label of a rule for every call that has no rule of its own.
const AnyOp Op = ""

// Rule says what goes wrong with the calls of one label.
type Rule struct {
	// Skip is the number of calls that pass unharmed first.
	Skip int
	// Times is the number of calls harmed after that; 0 stands for all.
	Times int
	// Err is what a harmed call fails with; nil lets it pass (after Block).
	Err error
	// Short is the number of bytes that a failing write still writes.
	Short int
	// Block holds a harmed call until the channel is closed: a hanging disk.
	Block <-chan struct{}
	// After makes a failing call do its work first and then report Err, as a
	// call does whose answer is lost. It does not go with Short.
	After bool
}

// Faulty wraps an FS and fails, shortens or blocks its calls by label. Writes
// and reads of a file have the labels WriteOp and ReadOp of the label it was
// opened with. Rules may change at any time; it is safe for concurrent use.
type Faulty struct {
	base FS

	mu    sync.Mutex
	rules map[Op]*ruleState
	count map[Op]int
}

type ruleState struct {
	Rule
	seen int
}

// NewFaulty wraps base; without rules nothing is harmed.
func NewFaulty(base FS) *Faulty {
	return &Faulty{base: base, rules: map[Op]*ruleState{}, count: map[Op]int{}}
}

// Set gives op a rule, in place of any it had; counting starts anew.
func (f *Faulty) Set(op Op, r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules[op] = &ruleState{Rule: r}
}

// Fail makes every call of op fail with err from now on.
func (f *Faulty) Fail(op Op, err error) { f.Set(op, Rule{Err: err}) }

// Clear removes the rules of ops, or all when none is given. Calls that are
// blocked stay so until their channel is closed.
func (f *Faulty) Clear(ops ...Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(ops) == 0 {
		clear(f.rules)
	}
	for _, op := range ops {
		delete(f.rules, op)
	}
}

// Count is the number of calls of op so far, harmed ones included.
func (f *Faulty) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[op]
}

// Ops is the set of labels seen so far, with their numbers of calls.
func (f *Faulty) Ops() map[Op]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := make(map[Op]int, len(f.count))
	for op, n := range f.count {
		seen[op] = n
	}
	return seen
}

// verdict counts a call and returns the rule that harms it, or the zero rule.
func (f *Faulty) verdict(op Op) Rule {
	f.mu.Lock()
	f.count[op]++
	s := f.rules[op]
	if s == nil {
		s = f.rules[AnyOp]
	}
	var r Rule
	if s != nil {
		s.seen++
		if s.seen > s.Skip && (s.Times == 0 || s.seen <= s.Skip+s.Times) {
			r = s.Rule
		}
	}
	f.mu.Unlock()
	if r.Block != nil {
		<-r.Block
	}
	return r
}

// run does one call under its rule.
func (f *Faulty) run(op Op, call func() error) error {
	r := f.verdict(op)
	if r.Err == nil || r.After {
		if err := call(); err != nil {
			return err
		}
	}
	return r.Err
}

// OpenFile implements FS.
func (f *Faulty) OpenFile(op Op, name string, flag int, perm fs.FileMode) (File, error) {
	var file File
	err := f.run(op, func() (err error) {
		file, err = f.base.OpenFile(op, name, flag, perm)
		return err
	})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, pathError("open", name, err)
	}
	return &faultyFile{File: file, fs: f, op: op}, nil
}

// Rename implements FS.
func (f *Faulty) Rename(op Op, oldName, newName string) error {
	return f.run(op, func() error { return f.base.Rename(op, oldName, newName) })
}

// Remove implements FS.
func (f *Faulty) Remove(op Op, name string) error {
	return f.run(op, func() error { return f.base.Remove(op, name) })
}

// MkdirAll implements FS.
func (f *Faulty) MkdirAll(op Op, name string, perm fs.FileMode) error {
	return f.run(op, func() error { return f.base.MkdirAll(op, name, perm) })
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(op Op, name string) error {
	return f.run(op, func() error { return f.base.SyncDir(op, name) })
}

// ReadDir implements FS.
func (f *Faulty) ReadDir(op Op, name string) (list []fs.DirEntry, err error) {
	err = f.run(op, func() (err error) {
		list, err = f.base.ReadDir(op, name)
		return err
	})
	return list, err
}

// Stat implements FS.
func (f *Faulty) Stat(op Op, name string) (info fs.FileInfo, err error) {
	err = f.run(op, func() (err error) {
		info, err = f.base.Stat(op, name)
		return err
	})
	return info, err
}

// Lock implements FS.
func (f *Faulty) Lock(op Op, name string) (lock io.Closer, err error) {
	err = f.run(op, func() (err error) {
		lock, err = f.base.Lock(op, name)
		return err
	})
	if err != nil && lock != nil {
		lock.Close()
		lock = nil
	}
	return lock, err
}

// Usage implements FS.
func (f *Faulty) Usage(op Op, dir string) (u Usage, err error) {
	err = f.run(op, func() (err error) {
		u, err = f.base.Usage(op, dir)
		return err
	})
	return u, err
}

// faultyFile harms the calls on one open file.
type faultyFile struct {
	File
	fs *Faulty
	op Op // it was opened with
}

func (f *faultyFile) Read(b []byte) (n int, err error) {
	return f.transfer(ReadOp(f.op), b, f.File.Read)
}

func (f *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	return f.transfer(ReadOp(f.op), b, func(b []byte) (int, error) { return f.File.ReadAt(b, off) })
}

func (f *faultyFile) Write(b []byte) (int, error) {
	return f.transfer(WriteOp(f.op), b, f.File.Write)
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	return f.transfer(WriteOp(f.op), b, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

// transfer moves b's bytes, or as many of them as the rule lets through.
func (f *faultyFile) transfer(op Op, b []byte, move func([]byte) (int, error)) (int, error) {
	r := f.fs.verdict(op)
	if r.Err == nil {
		return move(b)
	}
	short := min(r.Short, len(b))
	if r.After {
		short = len(b)
	}
	n := 0
	if short > 0 {
		var err error
		if n, err = move(b[:short]); err != nil {
			return n, err
		}
	}
	return n, pathError(string(op), f.Name(), r.Err)
}

func (f *faultyFile) Truncate(op Op, size int64) error {
	return f.fs.run(op, func() error { return f.File.Truncate(op, size) })
}

func (f *faultyFile) Sync(op Op) error {
	return f.fs.run(op, func() error { return f.File.Sync(op) })
}
