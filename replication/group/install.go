package group

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// keyRestoring is the key in the log of the restoring mark: the applied index of
// the state that must be there (8 bytes, big-endian), then the name of the file
// that has it. Empty: none.
const keyRestoring = "Restoring"

type restoring struct {
	state uint64
	file  string // in Config.Dir
}

func (m restoring) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, m.state), m.file...)
}

// mark is the restoring mark; ok is false when there is none.
func (g *Group) mark() (m restoring, ok bool, err error) {
	b, err := g.cfg.Log.Get([]byte(keyRestoring))
	if err != nil || len(b) == 0 {
		return m, false, err
	}
	if len(b) < 8 || filepath.Base(string(b[8:])) != string(b[8:]) {
		return m, false, object.Errorf(object.KindCorrupt, "the restoring mark of the log cannot be read; %s", readd)
	}
	return restoring{binary.BigEndian.Uint64(b), string(b[8:])}, true, nil
}

// receive answers a leader that sends its state, because the log that this replica
// lacks is gone. raft never sees the request: DESIGN.md says why and in what order
// things happen.
func (g *Group) receive(rpc raft.RPC, req *raft.InstallSnapshotRequest) {
	resp := &raft.InstallSnapshotResponse{Term: req.Term}
	data, end := g.stoppable(rpc.Reader)
	defer end()
	err := g.install(req, resp, data)
	if err != nil && g.err() == nil {
		g.log.Error("a state from the leader was not installed; it will send another", "error", err)
	}
	// Behind it on the same connection may come more (hashicorp/raft#212).
	_, drained := io.Copy(io.Discard, data)
	rpc.Respond(resp, errors.Join(err, drained))
}

// stoppable is r until the group stops, even if r says nothing for ever: then the
// one goroutine that reads it is left behind, and touches nothing else.
func (g *Group) stoppable(r io.Reader) (data io.Reader, end func()) {
	out, in := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(in, r, make([]byte, frameBytes))
		in.CloseWithError(err)
	}()
	stop := context.AfterFunc(g.ctx, func() { out.CloseWithError(context.Cause(g.ctx)) })
	return out, func() {
		stop()
		_ = out.Close() // of a pipe: never fails
	}
}

func (g *Group) install(req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, r io.Reader) error {
	if !g.receiving.TryLock() {
		return object.Errorf(object.KindBusy, "replica %s of partition %d is taking over a state already", g.cfg.Node, g.cfg.ID)
	}
	defer g.receiving.Unlock()
	i := g.now()
	if led, err := g.introduce(i, req, resp); err != nil || !led {
		return err
	}
	snap, err := recordIn(req)
	if err != nil {
		return err
	}
	if has, err := g.has(i, snap); err != nil || has {
		resp.Success = has
		return err
	}
	if err := g.clearImages(); err != nil {
		return err
	}
	g.log.Info("takes over the state of the leader", "leader", string(req.ID), "index", snap.index, "bytes", req.Size)
	m, err := g.spool(req, r)
	if err != nil {
		return err
	}
	snap.state = m.state
	if err := g.replace(snap, m); err != nil {
		return err
	}
	resp.Success, resp.Term = true, g.now().CurrentTerm()
	return nil
}

// clearImages removes what was received before and is of no use any more. receiving is held.
func (g *Group) clearImages() error {
	m, _, err := g.mark()
	if err != nil {
		return err
	}
	return removeImages(g.cfg.FS, g.cfg.Dir, g.cfg.ID, m.file)
}

// introduce shows raft a heartbeat of the sender: raft judges its term, adopts a
// newer one durably, and knows its leader.
func (g *Group) introduce(i *instance, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse) (led bool, err error) {
	answer := make(chan raft.RPCResponse, 1)
	g.deliver(raft.RPC{RespChan: answer, Command: &raft.AppendEntriesRequest{RPCHeader: req.RPCHeader, Term: req.Term}})
	select {
	case a := <-answer:
		if a.Error != nil {
			return false, a.Error
		}
		r := a.Response.(*raft.AppendEntriesResponse)
		resp.Term = r.Term
		return r.Success, nil
	case <-i.done:
		return false, g.refused()
	}
}

// recordIn is the record of the state that a leader sends, but for the machine's index.
func recordIn(req *raft.InstallSnapshotRequest) (s snapshotRecord, err error) {
	// raft panics on a configuration that it cannot decode.
	defer func() {
		if r := recover(); r != nil {
			err = object.Errorf(object.KindInvalid, "the configuration of a received state: %v", r)
		}
	}()
	s = snapshotRecord{index: req.LastLogIndex, term: req.LastLogTerm}
	s.conf = inForce{req.ConfigurationIndex, raft.DecodeConfiguration(req.Configuration)}
	if s.index == 0 || s.conf.index > s.index {
		return s, object.Errorf(object.KindInvalid, "a received state contradicts itself")
	}
	return s, nil
}

// has reports whether this replica has everything up to the record: then taking it
// over would take back entries that were acknowledged since it was sent.
func (g *Group) has(i *instance, s snapshotRecord) (bool, error) {
	mine, err := stored(g.cfg.Log)
	if err != nil {
		return false, err
	}
	if max(i.CommitIndex(), g.cfg.Machine.Applied(), mine.index) >= s.index {
		return true, nil
	}
	var entry raft.Log
	err = g.cfg.Log.GetLog(s.index, &entry)
	if errors.Is(err, raft.ErrLogNotFound) {
		return false, nil
	}
	// The same index and term: all before is the same too.
	return err == nil && entry.Term == s.term, err
}

// spool writes the stream to a file, checking it.
func (g *Group) spool(req *raft.InstallSnapshotRequest, r io.Reader) (m restoring, err error) {
	if err := makeDir(g.cfg.FS, g.cfg.Dir); err != nil {
		return m, err
	}
	m.file = imageFile(g.cfg.ID, req.LastLogIndex)
	stream := &io.LimitedReader{R: r, N: req.Size}
	err = vfs.WriteFile(g.cfg.FS, opImage, filepath.Join(g.cfg.Dir, m.file), 0o600, func(w io.Writer) error {
		in, err := readImage(io.TeeReader(stream, w))
		if err != nil {
			return err
		}
		m.state = in.applied
		_, err = io.Copy(io.Discard, in)
		return err
	})
	switch {
	case err != nil:
		return m, err
	case stream.N != 0 || m.state > req.LastLogIndex:
		return m, errors.Join(removeFile(g.cfg.FS, filepath.Join(g.cfg.Dir, m.file)),
			object.Errorf(object.KindCorrupt, "a received state of partition %d is not as long, or not as old, as it says", g.cfg.ID))
	}
	return m, nil
}

// replace stops raft, puts the received state in the place of log and state, and
// starts raft anew.
func (g *Group) replace(snap snapshotRecord, m restoring) error {
	g.life.Lock()
	defer g.life.Unlock()
	g.compactMu.Lock()
	defer g.compactMu.Unlock()
	i := g.now()
	if err := g.err(); err != nil {
		return errors.Join(err, removeFile(g.cfg.FS, filepath.Join(g.cfg.Dir, m.file)))
	}
	if err := g.halt(i); err != nil {
		g.Fail(err)
		return err
	}
	has, err := g.has(i, snap)
	if err == nil && !has {
		err = g.cfg.Log.Restart(snap.index, snap.term, snap.encode(), []byte(keyRestoring), m.encode())
	}
	if has || object.IsKind(err, object.KindNoSpace) { // nothing was done
		old, errOld := stored(g.cfg.Log)
		if errOld == nil {
			errOld = g.start(old)
		}
		if errOld != nil {
			g.Fail(errOld)
		}
		return errors.Join(err, errOld, removeFile(g.cfg.FS, filepath.Join(g.cfg.Dir, m.file)))
	}
	if err == nil {
		err = g.restore(m)
	}
	if err == nil {
		g.tellRestored(snap)
		err = g.start(snap)
	}
	if err != nil {
		if g.ctx.Err() == nil {
			g.Fail(err)
		}
		return err
	}
	return nil
}

// tellRestored tells the owner, before anything is applied to the new state.
func (g *Group) tellRestored(snap snapshotRecord) {
	g.progress.move()
	if g.cfg.OnRestore != nil {
		g.cfg.OnRestore(snap.state)
	}
	if tell := g.cfg.OnMembers; tell != nil { // what lies behind the record will not come by
		tell(snap.conf.index, members(snap.conf.config.Servers))
	}
}

// restore fills the machine from the file, unless it is as far: then its state is
// the same, and emptying it would make its index a lie in case of a crash.
func (g *Group) restore(m restoring) (err error) {
	if g.cfg.Machine.Applied() >= m.state {
		return nil
	}
	f, err := g.cfg.FS.OpenFile(opImage, filepath.Join(g.cfg.Dir, m.file), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in, err := readImage(f)
	if err != nil {
		return err
	}
	machine, ok := g.cfg.Machine.(Imager)
	if !ok {
		return errOwnSnapshots
	}
	if err := machine.Restore(g.ctx, in); err != nil {
		return err
	}
	if got := machine.Applied(); got != m.state {
		return fmt.Errorf("the restored state is that of entry %d, not %d", got, m.state)
	}
	return nil
}

// finishRestore does at start what a stop has interrupted, and clears away what
// was received and never used.
func (g *Group) finishRestore() error {
	if g.cfg.Dir == "" {
		return nil
	}
	m, ok, err := g.mark()
	if err != nil {
		return err
	}
	if ok {
		err := g.restore(m)
		if kind := object.KindOf(err); err != nil && (kind == object.KindCorrupt || kind == object.KindNotFound) {
			return object.Errorf(object.KindCorrupt, "a state that was being taken over is damaged (%w); %s", err, readd)
		}
		if err != nil {
			return err
		}
	}
	return removeImages(g.cfg.FS, g.cfg.Dir, g.cfg.ID, m.file)
}

// settleRestore lets go of the file once the machine has all of it durable.
// compactMu is held.
func (g *Group) settleRestore() error {
	m, ok, err := g.mark()
	if err != nil || !ok || g.cfg.Machine.Durable() < m.state {
		return err
	}
	if err := g.cfg.Log.Set([]byte(keyRestoring), nil); err != nil {
		return err
	}
	return removeFile(g.cfg.FS, filepath.Join(g.cfg.Dir, m.file))
}
