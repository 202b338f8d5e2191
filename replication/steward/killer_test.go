package steward_test

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// killer kills the node that comes to a step of a data partition's replica.
type killer struct {
	mu     sync.Mutex
	label  string // "": nobody
	after  int    // passes before it strikes
	only   string // the node; "": any
	victim *node
}

// arm has the node killed that comes to the step after so many have passed it; id
// "": whichever comes, else only that one.
func (k *killer) arm(label string, after int, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.label, k.after, k.only, k.victim = label, after, id, nil
}

func (k *killer) struck() *node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.victim
}

// pass is called at every step that a node comes to. Once the node is killed, it fails.
func (p *process) pass(label string) error {
	k := p.n.c.killer
	k.mu.Lock()
	if k.label == label && (k.only == "" || k.only == p.n.id) && k.victim == nil && p.alive() {
		if k.after--; k.after < 0 {
			k.label, k.victim = "", p.n
			p.kill()
		}
	}
	k.mu.Unlock()
	select {
	case <-p.dead:
		return errKilled
	default:
		return nil
	}
}

// killFS is the disk of a node's records: nothing is written any more once it is killed.
type killFS struct {
	vfs.FS
	p *process
}

func (f killFS) OpenFile(op vfs.Op, name string, flag int, perm os.FileMode) (vfs.File, error) {
	if flag != os.O_RDONLY {
		if err := f.p.pass("write " + string(op)); err != nil {
			return nil, err
		}
	}
	return f.FS.OpenFile(op, name, flag, perm)
}

func (f killFS) Rename(op vfs.Op, from, to string) error {
	if err := f.p.pass("rename " + filepath.Base(to)); err != nil {
		return err
	}
	if err := f.FS.Rename(op, from, to); err != nil {
		return err
	}
	return f.p.pass("renamed " + filepath.Base(to))
}
