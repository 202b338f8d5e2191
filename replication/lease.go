package replication

import (
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// leases are what keeps garbage of one partition alive at its leader: readers
// that pinned a version of a file, and sessions that have a file open. They
// are the leader's memory; a new leader reclaims nothing for one period, in
// which everybody renews.
type leases struct {
	period time.Duration
	start  time.Time

	mu    sync.Mutex
	pins  map[object.InodeID]map[uint64]int
	holds map[object.InodeID]map[object.UploadID]time.Time
	// doomed inodes are being reclaimed: an entry that drops them is under way.
	doomed map[object.InodeID]bool
}

func newLeases(period time.Duration) *leases {
	return &leases{period: period, start: time.Now(),
		pins:   map[object.InodeID]map[uint64]int{},
		holds:  map[object.InodeID]map[object.UploadID]time.Time{},
		doomed: map[object.InodeID]bool{}}
}

// begin: this node leads from now on, or no more. Others may need what it never heard of.
func (l *leases) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = time.Now()
}

// wait is how long nothing is reclaimed yet.
func (l *leases) wait() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.start.Add(l.period))
}

// pin keeps everything of a file that was retired after version at.
func (l *leases) pin(ino object.InodeID, at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(ino, at)
}

func (l *leases) add(ino object.InodeID, at uint64) {
	m := l.pins[ino]
	if m == nil {
		m = map[uint64]int{}
		l.pins[ino] = m
	}
	m[at]++
}

// move changes a pin from one version to another, without a moment in between.
func (l *leases) move(ino object.InodeID, from, to uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(ino, to)
	l.remove(ino, from)
}

// unpin ends a pin.
func (l *leases) unpin(ino object.InodeID, at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(ino, at)
}

func (l *leases) remove(ino object.InodeID, at uint64) {
	m := l.pins[ino]
	if m[at]--; m[at] <= 0 {
		delete(m, at)
	}
	if len(m) == 0 {
		delete(l.pins, ino)
	}
}

// hold keeps an inode for a session until it is released or not renewed for a
// period; false when it is too late.
func (l *leases) hold(ino object.InodeID, session object.UploadID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doomed[ino] {
		return false
	}
	m := l.holds[ino]
	if m == nil {
		m = map[object.UploadID]time.Time{}
		l.holds[ino] = m
	}
	m[session] = now.Add(l.period)
	return true
}

// spare ends the doom of inodes: their entry was applied, or was not.
func (l *leases) spare(inos []object.InodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ino := range inos {
		delete(l.doomed, ino)
	}
}

// expire forgets the holds of sessions that did not renew them.
func (l *leases) expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ino := range l.holds {
		l.expireOne(ino, now)
	}
}

func (l *leases) expireOne(ino object.InodeID, now time.Time) {
	for s, until := range l.holds[ino] {
		if now.After(until) {
			delete(l.holds[ino], s)
		}
	}
	if len(l.holds[ino]) == 0 {
		delete(l.holds, ino)
	}
}

func (l *leases) release(ino object.InodeID, session object.UploadID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.holds[ino]
	delete(m, session)
	if len(m) == 0 {
		delete(l.holds, ino)
	}
}

// free reports whether what was retired from a file at an index may go.
// whole: the inode itself goes, and is doomed from here on until spare.
func (l *leases) free(ino object.InodeID, at uint64, whole bool, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireOne(ino, now)
	if len(l.holds[ino]) > 0 {
		return false
	}
	for pin := range l.pins[ino] {
		if whole || pin < at {
			return false
		}
	}
	if whole {
		l.doomed[ino] = true
	}
	return true
}
