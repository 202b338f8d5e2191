package copies

import (
	"context"
	"sync"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// sink takes the checked bytes of one range from several sources at once. A chunk
// never changes, so what one source began another may go on with.
type sink struct {
	moved chan struct{} // cap 1: there is more

	mu   sync.Mutex // guards what follows
	dst  []byte
	n    int // bytes of dst that are there
	end  int // bytes that are to come in all
	shut bool
}

func newSink(dst []byte) *sink { return &sink{moved: make(chan struct{}, 1), dst: dst, end: len(dst)} }

// put takes the bytes at offset at of the range; it reports false when nobody
// wants more.
func (k *sink) put(at int, b []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shut {
		return false
	}
	if at <= k.n && at+len(b) > k.n {
		copy(k.dst[at:], b)
		k.n = at + len(b)
		select {
		case k.moved <- struct{}{}:
		default:
		}
	}
	return k.n < k.end
}

// size tells where the range ends because the chunk does.
func (k *sink) size(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.shut {
		k.end = int(max(0, min(n, int64(len(k.dst)))))
	}
}

// have is how many bytes are there, of how many that are to come.
func (k *sink) have() (n, end int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.n, k.end
}

// close leaves dst to its owner.
func (k *sink) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shut = true
}

// source is one way to get a range. read delivers from offset from of it on, and
// returns nil once the sink has what it wants.
type source struct {
	name string // the node; "" when it is several
	read func(ctx context.Context, from int, k *sink) error
}

// race reads one range from sources, in their order: the next one when one fails
// or is slow. It returns nil once k is full, or why each failed. Sources that are
// still at work end with their contexts, or with the disk that holds them.
type race struct {
	s       *Store
	sources []source
	sink    *sink
	answers chan failure // also successes

	asked   []time.Time // when, by source
	waited  time.Time   // since when nothing came
	running map[string]time.Time
}

func (s *Store) race(ctx context.Context, sources []source, k *sink) []failure {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r := &race{s: s, sources: sources, sink: k, answers: make(chan failure, len(sources)), running: map[string]time.Time{}}
	failures := r.run(ctx)
	k.close()
	for name, since := range r.running {
		if name != "" && failures == nil {
			s.speed.note(name, time.Since(since), true)
		}
	}
	return failures
}

func (r *race) run(ctx context.Context) (failures []failure) {
	timer := time.NewTimer(r.start(ctx))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return append(failures, failure{r.s.o.Self, ctx.Err()})
		case <-r.sink.moved:
			r.waited = time.Now()
			timer.Reset(r.patience())
		case <-timer.C:
			if waited := time.Since(r.waited); waited >= r.s.o.Stall {
				return append(failures, r.overdue()...)
			} else if len(r.asked) < len(r.sources) && r.s.speed.mayHedge(waited) {
				r.s.stats.hedged.Add(1)
				timer.Reset(r.start(ctx))
			} else {
				timer.Reset(r.patience())
			}
		case a := <-r.answers:
			if a.err == nil {
				delete(r.running, a.node)
				return nil
			}
			delete(r.running, a.node)
			if failures = append(failures, a); len(failures) == len(r.sources) {
				return failures
			}
			if a.node != "" && !gone(a.err) {
				r.s.speed.avoid(a.node)
			}
			if len(r.asked) < len(r.sources) {
				timer.Reset(r.start(ctx))
			}
		}
	}
}

// gone are failures that say nothing about how fast a holder is.
func gone(err error) bool {
	return object.IsKind(err, object.KindNotFound) || object.IsKind(err, object.KindCorrupt)
}

// start asks the next source, and returns how long to wait for it.
func (r *race) start(ctx context.Context) time.Duration {
	src := r.sources[len(r.asked)]
	began := time.Now()
	r.asked, r.waited = append(r.asked, began), began
	r.running[src.name] = began
	from, _ := r.sink.have()
	r.s.background(func() {
		err := src.read(ctx, from, r.sink)
		if err == nil {
			if n, end := r.sink.have(); n < end {
				err = object.Errorf(object.KindInternal, "it ended too early")
			}
		}
		r.answers <- failure{src.name, err}
	})
	return r.patience()
}

// patience is how long to wait now: for the newest source, or, when all have been
// asked, until nothing has moved for too long.
func (r *race) patience() time.Duration {
	left := r.s.o.Stall - time.Since(r.waited)
	if len(r.asked) == len(r.sources) {
		return max(left, time.Millisecond)
	}
	return max(min(left, r.s.speed.patience(r.sources[len(r.asked)-1].name)), time.Millisecond)
}

// overdue are the failures of the sources that have not answered.
func (r *race) overdue() (list []failure) {
	for name := range r.running {
		if name == "" {
			name = "a rebuild"
		} else {
			r.s.speed.avoid(name)
		}
		list = append(list, failure{name, stalled(name, r.s.o.Stall)})
	}
	clear(r.running)
	return list
}
