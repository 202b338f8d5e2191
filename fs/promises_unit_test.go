package fs

import (
	"context"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// stub is a cluster of which a test answers the calls that it expects.
type stub struct {
	Backend
	hold    func([]object.InodeID) error
	setAttr func(api.SetAttr)
	read    func(dst []byte, version uint64) (int, error)
	record  func() *object.Inode // of any inode that is asked for
}

func (s *stub) Lookup(context.Context, object.InodeID, string) (*object.Inode, error) {
	return s.record(), nil
}
func (s *stub) SetXattr(context.Context, object.InodeID, string, []byte, bool, bool) error {
	return nil
}

// Keep keeps nothing: each call's outcome is what it says.
func (s *stub) Keep(ctx context.Context) (context.Context, Kept) { return ctx, unkept{} }

type unkept struct{ Kept }

func (unkept) Unheard() bool { return false }
func (unkept) Done()         {}

func (s *stub) Hold(_ context.Context, inos []object.InodeID) error { return s.hold(inos) }

func (s *stub) SetAttr(_ context.Context, ino object.InodeID, a api.SetAttr) (*object.Inode, error) {
	s.setAttr(a)
	return &object.Inode{ID: ino, Version: 1, Change: 2}, nil
}

func (s *stub) ReadRange(_ context.Context, _ object.InodeID, _ int64, dst []byte, version uint64) (int, error) {
	return s.read(dst, version)
}

func (s *stub) Write(_ context.Context, ino object.InodeID, off int64, body io.Reader, _ api.WriteOptions) (*object.Inode, int64, error) {
	data, err := io.ReadAll(body)
	return &object.Inode{ID: ino, Version: 2, Change: 2, Size: off + int64(len(data))}, off, err
}

// unmounted is a filesystem over a stub that no kernel knows.
func unmounted(t *testing.T, s *stub) *filesystem {
	t.Helper()
	o, err := Options{Backend: s, Dir: t.TempDir()}.complete()
	if err != nil {
		t.Fatal(err)
	}
	f := newFilesystem(o, object.RootInode)
	t.Cleanup(f.quit)
	return f
}

// opened opens a file of 100 bytes for appending.
func opened(f *filesystem) *handle {
	return f.newHandle(&object.Inode{ID: 42, Version: 1, Change: 1, Size: 100}, syscall.O_RDWR|syscall.O_APPEND)
}

// Renewing names every open file, in bounded requests; one that is gone is not
// asked for again, and keeps no other from being held.
func TestRenewNamesEveryFile(t *testing.T) {
	const files, missing = holdBatch + 500, object.InodeID(77)
	renewed := map[object.InodeID]bool{}
	lost := false
	f := unmounted(t, &stub{hold: func(inos []object.InodeID) error {
		if len(inos) > holdBatch {
			t.Errorf("%d files in one request", len(inos))
		}
		if lost && slices.Contains(inos, missing) {
			return &object.Error{Kind: object.KindStale}
		}
		for _, ino := range inos {
			renewed[ino] = true
		}
		return nil
	}})
	for ino := object.InodeID(1); ino <= files; ino++ {
		f.holds.open(ino)
	}
	if err := f.holds.settle(t.Context()); err != nil || len(renewed) != files {
		t.Fatalf("%d files are held: %v", len(renewed), err)
	}
	lost = true
	for range 2 {
		clear(renewed)
		if err := f.holds.step(map[object.InodeID]bool{}, true); err != nil {
			t.Fatal(err)
		}
		if len(renewed) != files-1 || renewed[missing] {
			t.Fatalf("%d of %d files are renewed", len(renewed), files-1)
		}
	}
	if hold, _ := f.holds.diff(); len(hold) > 0 {
		t.Fatalf("%v is asked for again", hold)
	}
}

// An answer that lacks bytes of the version asked for is an error, not zeros.
func TestShortAnswerIsAnError(t *testing.T) {
	f := unmounted(t, &stub{read: func(dst []byte, _ uint64) (int, error) { return len(dst) / 2, nil }})
	h := opened(f)
	if n, err := f.read(t.Context(), h, 0, make([]byte, 100)); status(err) != fuse.EIO {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

func (s *stub) GetAttr(_ context.Context, ino object.InodeID) (*object.Inode, error) {
	if s.record != nil {
		return s.record(), nil
	}
	return &object.Inode{ID: ino, Version: 1, Change: 1, Size: 100}, nil
}

// A file that shrank under a busy writer is shown shorter, not filled with
// zeros, but for what our own writes behind its end make of it.
func TestReadInventsNothing(t *testing.T) {
	f := unmounted(t, &stub{read: func(dst []byte, version uint64) (int, error) {
		if version != 0 {
			return 0, &object.Error{Kind: object.KindPrecondition}
		}
		return copy(dst, strings.Repeat("x", 10)), nil // the file has 10 bytes now
	}})
	h := opened(f)
	for _, c := range []struct {
		at   int64 // of our own write; -1: none
		want string
	}{{-1, strings.Repeat("x", 10)}, {20, strings.Repeat("x", 10) + strings.Repeat("\x00", 10) + "me"}} {
		if c.at >= 0 {
			f.change(h.f, func(l *layer, now int64) { l.write(c.at, []byte("me"), false, now) })
		}
		buf := make([]byte, 50)
		if n, err := f.read(t.Context(), h, 0, buf); err != nil || string(buf[:n]) != c.want {
			t.Fatalf("%q, %v, want %q", buf[:n], err, c.want)
		}
	}
}

// Attributes for a file whose last handle was just closed go to the cluster.
func TestSetAttrAfterTheLastClose(t *testing.T) {
	var sent []uint32
	f := unmounted(t, &stub{setAttr: func(a api.SetAttr) { sent = append(sent, *a.Mode) }})
	h := opened(f)
	mode := uint32(0o640)
	f.change(h.f, func(l *layer, now int64) { l.write(0, []byte("x"), false, now) })
	h.f.opens = 0 // as if closed after setattr found the file dirty
	if _, err := f.setattr(t.Context(), h.f.ino, api.SetAttr{Mode: &mode}, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sent, []uint32{mode}) {
		t.Fatalf("the cluster was told %o", sent)
	}
}

// A change that comes between Release's flush and the close is flushed too.
func TestCloseRefusesUnsentChanges(t *testing.T) {
	f := unmounted(t, &stub{})
	h := opened(f)
	mode := uint32(0o640)
	f.change(h.f, func(l *layer, now int64) { l.setAttr(api.SetAttr{Mode: &mode}, now) })
	if _, closed := f.closeFile(h.f, h.write, false); closed {
		t.Fatal("closed over an unsent chmod")
	}
	lost, closed := f.closeFile(h.f, h.write, true)
	if !closed || lost == nil || lost.attr.Mode == nil {
		t.Fatalf("giving up: closed %v, lost %+v", closed, lost)
	}
}

// When an append lands elsewhere than the kernel thinks, its pages are not kept
// by the next open, also when the note to drop them had no room.
func TestShiftedAppendForgetsPages(t *testing.T) {
	f := unmounted(t, &stub{})
	h := opened(f)
	fh := f.handles.add(h)
	f.nodes.keepCache(h.f.ino, 1)
	in := &fuse.WriteIn{Fh: fh, Offset: 7, Flags: syscall.O_APPEND}
	if _, st := f.Write(nil, in, []byte("line")); st != fuse.OK {
		t.Fatal(st)
	}
	if v := f.nodes.cachedVersion(h.f.ino); v != 0 {
		t.Fatalf("pages of version %d are kept", v)
	}
}

// So also when the cluster, or an open file's flush, finds the end elsewhere.
func TestFlushAfterShiftKeepsNoPages(t *testing.T) {
	f := unmounted(t, &stub{})
	h := opened(f)
	f.nodes.keepCache(h.f.ino, 1)
	if _, st := f.Write(nil, &fuse.WriteIn{Fh: f.handles.add(h), Offset: 7, Flags: syscall.O_APPEND}, []byte("line")); st != fuse.OK {
		t.Fatal(st)
	}
	if err := f.flush(t.Context(), h.f); err != nil {
		t.Fatal(err)
	}
	if v := f.nodes.cachedVersion(h.f.ino); v != 0 {
		t.Fatalf("pages are taken to be of version %d", v)
	}
}

// An append is bounded by where it lands, not by where the kernel thinks.
func TestAppendBehindTheLargestFile(t *testing.T) {
	f := unmounted(t, &stub{})
	h := f.newHandle(&object.Inode{ID: 42, Version: 1, Change: 1, Size: object.MaxFileSize - 2}, syscall.O_WRONLY|syscall.O_APPEND)
	_, st := f.Write(nil, &fuse.WriteIn{Fh: f.handles.add(h), Flags: syscall.O_APPEND}, []byte("line"))
	if used, _ := f.wmem.stats(); st != fuse.Status(syscall.EFBIG) || used != 0 {
		t.Fatalf("%v, %d bytes are kept", st, used)
	}
}

// An ACL's ids go through the maps of owners, both ways; other bytes stay.
func TestMappedACL(t *testing.T) {
	f := &filesystem{o: Options{UIDs: IDMap{{Local: 100, Stored: 5000, Count: 10}}, GIDs: IDMap{{Local: 200, Stored: 7000, Count: 10}}}}
	acl := func(user, group uint32) []byte {
		return object.ACL{{Tag: object.ACLUserObj, Perm: 7}, {Tag: object.ACLUser, Perm: 6, ID: user}, {Tag: object.ACLGroupObj},
			{Tag: object.ACLGroup, Perm: 5, ID: group}, {Tag: object.ACLMask, Perm: 7}, {Tag: object.ACLOther}}.Encode()
	}
	stored, st := f.storedACL(acl(101, 202))
	if st != fuse.OK || !slices.Equal(stored, acl(5001, 7002)) {
		t.Errorf("stored as %v, %v", stored, st)
	}
	if got := mapACL(stored, f.o.UIDs.local, f.o.GIDs.local); !slices.Equal(got, acl(101, 202)) {
		t.Errorf("shown as %v", got)
	}
	if _, st := f.storedACL(acl(1, 202)); st != fuse.EINVAL {
		t.Errorf("a user whom the map does not name: %v", st)
	}
	if got := mapACL([]byte("x"), f.o.UIDs.local, f.o.GIDs.local); string(got) != "x" {
		t.Errorf("what is no ACL: %q", got)
	}
}

// An answer from before a change does not tell, after it, that an inode has no extended
// attributes: not for an inode that this mount never met either, and whoever changed it.
func TestLateAnswerHidesNoACL(t *testing.T) {
	const ino = object.InodeID(42)
	heard := func(f *filesystem) {
		f.notes.handle(api.Event{Kind: api.EventInode, Partition: ino.Partition(), Index: 8, Inode: api.ID(ino)})
	}
	changes := map[string]func(f *filesystem){
		"by another": heard,
		"by another, and forgotten": func(f *filesystem) {
			heard(f)
			f.nodes.forget(ino, 1)
		},
		"here": func(f *filesystem) {
			if st := f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: fuse.InHeader{NodeId: f.node(ino)}}, "user.x", []byte("x")); st != fuse.OK {
				t.Error(st)
			}
		},
		"by another, among many": func(f *filesystem) {
			heard(f)
			for i := range object.InodeID(2 * maxMissed) {
				f.nodes.moved(1000+i, 8)
			}
		},
	}
	asks := map[string]func(f *filesystem) error{
		"lookup": func(f *filesystem) error {
			if st := f.Lookup(nil, &fuse.InHeader{NodeId: f.node(object.RootInode)}, "f", &fuse.EntryOut{}); st != fuse.OK {
				return syscall.Errno(st)
			}
			return nil
		},
		"getattr": func(f *filesystem) error { _, err := f.xattrs(t.Context(), ino); return err },
	}
	for change, do := range changes {
		for what, ask := range asks {
			for _, known := range []bool{false, true} {
				s := &stub{}
				f := unmounted(t, s)
				inode := &object.Inode{ID: ino, Type: object.TypeRegular, Change: 7}
				if known {
					f.nodes.remember(ino)
				}
				meanwhile := func() {}
				s.record = func() *object.Inode { meanwhile(); return inode }
				meanwhile = func() { meanwhile = func() {}; do(f) }
				if err := ask(f); err != nil {
					t.Fatal(err)
				}
				if f.nodes.isBare(ino) {
					t.Errorf("%s, %s (known: %t): it is taken to have no attributes", what, change, known)
				}
				// The next answer, and one that has the change already, are believed.
				inode = &object.Inode{ID: ino, Type: object.TypeRegular, Change: 8}
				f.nodes.remember(ino)
				meanwhile = func() { meanwhile = func() {}; heard(f) }
				if err := ask(f); err != nil {
					t.Fatal(err)
				}
				if !f.nodes.isBare(ino) {
					t.Errorf("%s, %s (known: %t): an answer with the change is not believed", what, change, known)
				}
			}
		}
	}
}
