package meta

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/need"
)

// deepLog takes long, far down its own stack, for what compactions have to say.
type deepLog struct {
	slog.Handler
	n *atomic.Int64
}

//go:noinline
func down(n int, d time.Duration) int {
	if n == 0 {
		time.Sleep(d)
		return 0
	}
	return down(n-1, d) + 1
}

func (h deepLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "LOG Compact. Added") && h.n.Add(1)%2 == 0 {
		down(40, 1500*time.Millisecond)
	}
	return nil
}
func (h deepLog) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h deepLog) Enabled(context.Context, slog.Level) bool { return true }

// A log that is slow, and deep, is no damage.
func TestSlowDeepLogIsNoDamage(t *testing.T) {
	opts := small(t.TempDir())
	opts.Logger = slog.New(deepLog{slog.DiscardHandler, new(atomic.Int64)})
	db := open(t, opts)
	random := rand.NewChaCha8([32]byte{})
	rounds, deadline := need.Size(2, 8), time.Now().Add(100*time.Second)
	for n := 0; balanced(db) < rounds && time.Now().Before(deadline); n++ {
		must(t, overwriteBy(db, n, func() []byte {
			value := make([]byte, 700)
			_, _ = random.Read(value)
			return value
		}))
	}
	must(t, db.lines.damage())
}
