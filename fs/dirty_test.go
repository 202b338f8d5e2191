package fs

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// model is a file as a byte slice.
type model []byte

func (m *model) grow(size int) {
	if size > len(*m) {
		*m = append(*m, make([]byte, size-len(*m))...)
	}
}

func (m *model) write(off int, p []byte) {
	m.grow(off + len(p))
	copy((*m)[off:], p)
}

func (m *model) truncate(size int) {
	m.grow(size)
	*m = append(model(nil), (*m)[:size]...)
}

// TestLayers checks random changes, flushes that fail half-way, and reads
// against a byte slice.
func TestLayers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want, base model
		l, flying := newLayer(), (*layer)(nil)
		const span_ = 3 * pieceSize
		settle := func(to int) { // as admit does
			if flying != nil && int64(to) > min(flying.tailFrom(), l.tailFrom()) {
				base, flying = flush(base, flying, nil), nil
			}
			if int64(to) > l.tailFrom() {
				base, l = flush(base, l, nil), newLayer()
			}
		}
		offset := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(pieceSize-200, pieceSize+200), rapid.IntRange(0, span_))
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off, p := offset.Draw(t, "off"), rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "data")
				settle(off + len(p))
				l.write(int64(off), p, false, 1)
				want.write(off, p)
			},
			"append": func(t *rapid.T) {
				p := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "data")
				l.write(int64(len(want)), p, true, 1)
				want.write(len(want), p)
			},
			"truncate": func(t *rapid.T) {
				size := rapid.OneOf(rapid.Just(0), offset).Draw(t, "size")
				if size > 0 {
					settle(math.MaxInt)
				}
				l.truncate(int64(size), 1)
				want.truncate(size)
			},
			"take full": func(t *rapid.T) {
				if flying == nil {
					if full := l.takeFull(); full != nil {
						flying = full
					}
				}
			},
			"launch": func(t *rapid.T) {
				if flying == nil {
					flying, l = l, newLayer()
				}
			},
			"succeed": func(t *rapid.T) {
				if flying != nil {
					base = flush(base, flying, nil)
					flying = nil
				}
			},
			"fail": func(t *rapid.T) {
				if flying != nil {
					sent := rapid.SliceOfN(rapid.Bool(), len(flying.extents), len(flying.extents)).Draw(t, "sent")
					cut := rapid.Bool().Draw(t, "cut")
					for i := range flying.extents {
						sent[i] = sent[i] && !flying.extents[i].tail && (cut || flying.cut < 0)
						flying.extents[i].sent = sent[i]
					}
					if cut && flying.cut >= 0 {
						base = flush(base, flying, sent)
						flying.cut = -1
					} else if flying.cut < 0 {
						base = flush(base, flying, sent)
					}
					l, flying = flying.over(l), nil
				}
			},
			"": func(t *rapid.T) { checkLayers(t, want, base, flying, l) },
		})
	})
}

// flush applies a layer to the content below it, as a cluster would that got
// the cut and the extents marked in sent (nil: everything).
func flush(base model, l *layer, sent []bool) model {
	if l.cut >= 0 {
		base.truncate(int(l.cut))
	}
	for i, e := range l.extents {
		if sent == nil || sent[i] {
			base.write(int(e.off), e.data)
		}
	}
	if sent == nil {
		base.grow(int(l.grow))
	}
	return base
}

func checkLayers(t *rapid.T, want, base model, flying, l *layer) {
	size := int64(len(base))
	if flying != nil {
		size = flying.size(size)
	}
	if size = l.size(size); size != int64(len(want)) {
		t.Fatalf("size %d, want %d", size, len(want))
	}
	sum := int64(0)
	for i, e := range l.extents {
		sum += int64(len(e.data))
		if len(e.data) == 0 || i > 0 && l.extents[i-1].end() > e.off || i > 0 && l.extents[i-1].tail && !e.tail {
			t.Fatalf("extent %d [%d,%d) is empty or out of order", i, e.off, e.end())
		}
		if !e.tail && e.off/pieceSize != (e.end()-1)/pieceSize || len(e.data) > pieceSize {
			t.Fatalf("extent %d [%d,%d) is across pieces, or too long", i, e.off, e.end())
		}
	}
	if sum != l.bytes {
		t.Fatalf("%d bytes counted, %d there", l.bytes, sum)
	}
	for _, w := range []span{{0, min(size, 1000)}, {max(0, size-1000), size}, {min(size, pieceSize-500), min(size, pieceSize+500)}} {
		buf := bytes.Repeat([]byte{0xEE}, int(w.to-w.from))
		missing := l.fill(w.from, buf, []span{w})
		if flying != nil {
			missing = flying.fill(w.from, buf, missing)
		}
		for _, s := range clip(missing, int64(len(base)), w.from, buf) {
			copy(buf[s.from-w.from:], base[s.from:s.to])
		}
		if !bytes.Equal(buf, want[w.from:w.to]) {
			t.Fatalf("bytes [%d,%d) differ", w.from, w.to)
		}
	}
}

// What was sent and lost is no hole at the end of the file.
func TestLostAppendLeavesNoHole(t *testing.T) {
	l := newLayer()
	l.write(10, []byte("mine\n"), true, 1)
	l.extents[0].sent = true
	if size := l.over(newLayer()).size(10); size != 10 {
		t.Fatalf("the file is shown with %d bytes, and has 10", size)
	}
}
