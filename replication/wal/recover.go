package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// recover brings the log of a directory back: DESIGN.md, "Recovery", says why
// each step is safe. It ends with a fresh active segment.
func (l *Log) recover() error {
	if err := l.prepareDir(); err != nil {
		return err
	}
	if err := l.openAll(); err != nil {
		return err
	}
	if len(l.order) == 0 {
		_, err := l.addSegment(l.opts.SegmentBytes)
		return err
	}
	if err := l.dropUnneeded(); err != nil {
		return err
	}
	tail, found, err := l.replay()
	if err != nil {
		return err
	}
	return l.finishTail(tail, found)
}

// prepareDir makes the directory durable and removes half-made segments.
func (l *Log) prepareDir() error {
	fsys, dir := l.opts.FS, l.opts.Dir
	if err := fsys.MkdirAll(opMkdir, dir, 0o700); err != nil {
		return err
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if err := fsys.SyncDir(opSyncParent, filepath.Dir(d)); err != nil {
			return err
		}
	}
	list, err := fsys.ReadDir(opList, dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := e.Name()
		if id, ok := parseSegmentName(name); ok {
			l.order = append(l.order, id)
		} else if strings.HasSuffix(name, Suffix+tempSuffix) {
			if err := fsys.Remove(opRemoveTemp, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) openAll() error {
	for _, id := range l.order {
		s, err := openSegment(l.opts.FS, l.opts.Dir, segmentName(id))
		if err != nil {
			return err
		}
		l.segs[id] = s
	}
	return nil
}

// dropUnneeded finds the newest word on the oldest needed segment, which is in
// the last one, finishes the removal of those before it, and checks that none is
// missing.
func (l *Log) dropUnneeded() error {
	last := l.segs[l.order[len(l.order)-1]]
	found, err := last.scan(nil)
	if err != nil {
		return err
	}
	if found.sealed {
		return last.corrupt(found.end, fmt.Sprintf("it is sealed, but segment %016x, which must follow, is missing", last.id+1))
	}
	l.oldest = found.oldest
	for len(l.order) > 0 && l.order[0] < l.oldest {
		if err := l.removeOldest(); err != nil {
			return err
		}
	}
	for i, id := range l.order {
		if want := l.oldest + uint64(i); id != want {
			return last.corrupt(0, fmt.Sprintf("segment %016x, which it needs, is missing", want))
		}
	}
	return nil
}

// replay applies all segments in order. All must be sealed but the tail: the
// last one, or the one before it while the last is still empty.
func (l *Log) replay() (tail *segment, found scanned, err error) {
	for i, id := range l.order {
		s := l.segs[id]
		f, err := s.scan(l.replayRecord)
		if err != nil {
			return nil, f, err
		}
		s.end = f.end
		switch lastEmpty := i == len(l.order)-1 && f.empty(); {
		case tail != nil && !lastEmpty:
			return nil, f, tail.corrupt(tail.end, "it has no seal, but the segment after it is in use")
		case tail != nil:
		case !f.sealed:
			tail, found = s, f
		}
	}
	if info, err := tail.file.Stat(); err != nil {
		return nil, found, err
	} else if info.Size() < tail.size {
		return nil, found, tail.corrupt(info.Size(), fmt.Sprintf("it was cut from %d bytes to %d", tail.size, info.Size()))
	}
	return tail, found, nil
}

func (l *Log) replayRecord(r record, at loc) { l.groupLocked(r.group).apply(&r, at) }

// finishTail makes what was found in the tail durable, seals it, and leaves a
// new empty segment active: nothing is ever appended behind torn bytes.
func (l *Log) finishTail(tail *segment, f scanned) error {
	if f.torn {
		l.log.Warn("dropped the torn, never acknowledged tail of the log", "segment", tail.path, "offset", f.end)
	}
	if err := tail.harden(f); err != nil {
		return err
	}
	if last := l.order[len(l.order)-1]; tail.id != last {
		l.active = l.segs[last]
	} else if _, err := l.addSegment(l.opts.SegmentBytes); err != nil {
		return err
	}
	return tail.seal(l.oldest)
}

// harden syncs the tail. Its last batch may never have been synced, and after a
// failed sync the kernel may show bytes as clean that are not on the disk: so
// they are written again first.
func (s *segment) harden(f scanned) error {
	if f.last > 0 && !f.marked {
		b := make([]byte, f.last)
		if _, err := s.file.ReadAt(b, f.lastAt); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(b, f.lastAt); err != nil {
			return err
		}
	}
	return s.file.Sync(opRepairSync)
}

// addSegment makes the next segment, of size bytes, and makes it active. See
// createSegment for retry.
func (l *Log) addSegment(size int64) (retry bool, err error) {
	s := &segment{id: l.nextID(), size: size, oldest: max(l.oldest, 1)}
	if s.id >= 1<<32 {
		return true, errors.New("the log has used up its segment numbers")
	}
	if retry, err = createSegment(l.opts.FS, l.opts.Dir, s); err != nil {
		return retry, fmt.Errorf("making log segment %s: %w", s.path, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.oldest = s.oldest
	l.segs[s.id] = s
	l.order = append(l.order, s.id)
	l.active = s
	return false, nil
}

func (l *Log) nextID() uint64 {
	switch {
	case l.active != nil:
		return l.active.id + 1
	case len(l.order) > 0:
		return l.order[len(l.order)-1] + 1
	}
	return 1
}

// removeOldest deletes the first file durably. What was alive in it is already
// in later segments, and they say that it is not needed.
func (l *Log) removeOldest() error {
	l.mu.RLock()
	s := l.segs[l.order[0]]
	l.mu.RUnlock()
	if err := l.opts.FS.Remove(opRemove, s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing log segment %s: %w", s.path, err)
	}
	l.mu.Lock()
	delete(l.segs, s.id)
	l.order = l.order[1:]
	l.mu.Unlock()
	return errors.Join(s.close(), l.opts.FS.SyncDir(opRemoveDir, l.opts.Dir))
}
