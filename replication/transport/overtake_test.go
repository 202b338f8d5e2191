package transport

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// slowTo forwards to addr; each connection carries rate bytes a second towards it.
func slowTo(t *testing.T, addr string, rate int) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	carry := func(in, out net.Conn) {
		defer out.Close()
		b := make([]byte, 16<<10)
		for {
			n, err := in.Read(b)
			if err != nil {
				return
			}
			<-time.After(time.Duration(n) * time.Second / time.Duration(rate))
			if _, err := out.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			_ = in.(*net.TCPConn).SetReadBuffer(64 << 10)
			go carry(in, out)
			go func() {
				_, _ = io.Copy(in, out)
				in.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

// TestRepeatDoesNotOvertakeEntries: a request that says nothing new goes with the heartbeats, by a
// connection of its own. Where entries before it are still on their way it would come first, be
// refused for their want, and end the pipeline: raft then sends all of them again.
func TestRepeatDoesNotOvertakeEntries(t *testing.T) {
	bk, logs := &book{}, map[string]*syncBuffer{}
	var nodes []*Node
	for _, name := range names(2) {
		nodes = append(nodes, open(t, bk, Options{Node: name}))
	}
	addr, err := bk.resolve("n2")
	must(t, err)
	bk.set("n2", slowTo(t, addr, 1<<20))
	var reps []*replica
	for _, n := range nodes {
		l := &syncBuffer{}
		logs[n.opt.Node] = l
		reps = append(reps, startReplica(t, n, 1, names(2), "", func(c *raft.Config) {
			c.Logger = hclog.New(&hclog.LoggerOptions{Name: n.opt.Node, Level: hclog.Debug, Output: l})
			if n.opt.Node == "n2" {
				c.HeartbeatTimeout, c.ElectionTimeout = 5*time.Second, 5*time.Second // n1 leads
			}
		}))
	}
	eventually(t, "n1 leads", func() bool { return reps[0].r.State() == raft.Leader })
	must(t, reps[0].r.Apply([]byte("x"), 0).Error())
	eventually(t, "a pipeline", func() bool { return strings.Contains(logs["n1"].String(), "pipelining replication") })
	refused := func() int { return strings.Count(logs["n2"].String(), "failed to get previous log") }
	before := refused()
	must(t, reps[0].r.Apply(make([]byte, 2<<20), 0).Error()) // it takes seconds, and CommitTimeout passes
	if refused() > before {
		t.Errorf("something came before the entries that it follows:\n%s\n%s", logs["n1"], logs["n2"])
	}
}
