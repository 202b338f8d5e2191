package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// HeartbeatEvery is how often a stream carries a line at least.
const HeartbeatEvery = 500 * time.Millisecond

// streamSilence is how long a stream may be silent before it counts as dead.
const streamSilence = 6 * HeartbeatEvery

// FormatSince writes positions as the events query takes them:
// "partition:index,partition:index".
func FormatSince(since map[object.PartitionID]uint64) string {
	ids := make([]int, 0, len(since))
	for p := range since {
		ids = append(ids, int(p))
	}
	sort.Ints(ids)
	parts := make([]string, len(ids))
	for i, p := range ids {
		parts[i] = strconv.Itoa(p) + ":" + strconv.FormatUint(since[object.PartitionID(p)], 10)
	}
	return strings.Join(parts, ",")
}

// ParseSince reads what FormatSince wrote; "" is no position.
func ParseSince(s string) (map[object.PartitionID]uint64, error) {
	since := map[object.PartitionID]uint64{}
	if s == "" {
		return since, nil
	}
	for _, part := range strings.Split(s, ",") {
		p, index, ok := strings.Cut(part, ":")
		id, err1 := strconv.ParseUint(p, 10, 16)
		i, err2 := strconv.ParseUint(index, 10, 64)
		if !ok || err1 != nil || err2 != nil {
			return nil, object.Errorf(object.KindInvalid, "%q is not a position; write since=PARTITION:INDEX,PARTITION:INDEX", part)
		}
		since[object.PartitionID(id)] = i
	}
	return since, nil
}

// EventStream is a stream of changes from one node.
type EventStream struct {
	nodes *endpoints
	node  int         // that it comes from
	ended atomic.Bool // by Close
	body  io.Closer
	lines *bufio.Reader
	stop  context.CancelFunc
	timer *time.Timer
}

// Events opens a stream of changes behind the given positions; a partition that
// is absent starts now. When it returns, the stream has begun: its first line,
// a heartbeat, was read, and every later change will be told. The caller closes it.
func (c *Client) Events(ctx context.Context, since map[object.PartitionID]uint64) (*EventStream, error) {
	k := &call{op: "events", method: "GET", path: "/events", stream: true}
	if len(since) > 0 {
		k.query = url.Values{"since": {FormatSince(since)}}
	}
	ctx, stop := context.WithCancel(ctx)
	resp, err := c.do(ctx, k)
	if err != nil {
		stop()
		return nil, err
	}
	s := &EventStream{nodes: c.nodes, node: k.node, body: resp.Body, lines: bufio.NewReaderSize(resp.Body, 64<<10), stop: stop}
	s.timer = time.AfterFunc(streamSilence, stop)
	if _, err := s.Next(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Next waits for the next event, heartbeats among them. It fails with
// KindUnavailable when the stream broke or was silent for three seconds: open
// another one behind the last positions. Not safe for concurrent use.
func (s *EventStream) Next() (Event, error) {
	s.timer.Reset(streamSilence)
	line, err := s.lines.ReadBytes('\n')
	if err != nil {
		if !s.ended.Load() {
			s.nodes.failed(s.node) // the next stream, and other calls, begin elsewhere
		}
		return Event{}, object.WithOp(brokeOff(err), "events", "", "")
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, object.WithOp(object.Errorf(object.KindInternal, "an event is not understood: %w", err), "events", "", "")
	}
	return e, nil
}

// Close ends the stream; it may be called while Next waits.
func (s *EventStream) Close() error {
	s.ended.Store(true)
	s.timer.Stop()
	s.stop()
	return s.body.Close()
}
