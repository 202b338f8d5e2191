package erasure

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

func wantKind(t rapid.TB, err error, k object.Kind) {
	t.Helper()
	if !object.IsKind(err, k) {
		t.Fatalf("got error %v, want kind %v", err, k)
	}
}

func encode(t rapid.TB, k, m int, data []byte) (*Codec, [][]byte) {
	t.Helper()
	c, err := New(k, m)
	if err != nil {
		t.Fatal(err)
	}
	shards, err := c.Encode(data)
	if err != nil {
		t.Fatal(err)
	}
	return c, shards
}

// clone copies shards without those in lost.
func clone(shards [][]byte, lost []int) [][]byte {
	out := make([][]byte, len(shards))
	for i := range shards {
		if !slices.Contains(lost, i) {
			out[i] = bytes.Clone(shards[i])
		}
	}
	return out
}

func drawLoss(t *rapid.T, shards, n int) []int {
	order := make([]int, shards)
	for i := range order {
		order[i] = i
	}
	return rapid.Permutation(order).Draw(t, "order")[:n]
}

func TestAnyMLossesRecover(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, m := rapid.IntRange(1, 12).Draw(t, "k"), rapid.IntRange(1, 6).Draw(t, "m")
		data := rapid.SliceOfN(rapid.Byte(), 1, 500).Draw(t, "data")
		c, whole := encode(t, k, m, data)
		for _, s := range whole {
			if len(s) != c.ShardSize(len(data)) {
				t.Fatalf("a shard of %d bytes", len(s))
			}
		}
		lost := drawLoss(t, k+m, rapid.IntRange(0, m).Draw(t, "losses"))

		shards := clone(whole, lost)
		got, err := c.Join(shards, len(data))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("join without %v: %v", lost, err)
		}
		shards = clone(whole, lost)
		if err := c.Reconstruct(shards, nil); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(shards, whole, bytes.Equal) {
			t.Fatalf("other shards came back without %v", lost)
		}
		if ok, err := c.Verify(shards); err != nil || !ok {
			t.Fatalf("verify: %v, %v", ok, err)
		}
		if len(lost) > 0 { // one of them alone, as a repair of one holder does
			shards = clone(whole, lost)
			if err := c.Reconstruct(shards, lost[:1]); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(shards[lost[0]], whole[lost[0]]) {
				t.Fatalf("another shard %d", lost[0])
			}
		}
	})
}

func TestMoreLossesAreRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, m := rapid.IntRange(1, 12).Draw(t, "k"), rapid.IntRange(1, 6).Draw(t, "m")
		data := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "data")
		c, whole := encode(t, k, m, data)
		lost := drawLoss(t, k+m, rapid.IntRange(m+1, k+m).Draw(t, "losses"))
		shards := clone(whole, lost)
		wantKind(t, c.Reconstruct(shards, nil), object.KindUnavailable)
		wantKind(t, c.Reconstruct(shards, lost[:1]), object.KindUnavailable)
		_, err := c.Join(shards, len(data))
		wantKind(t, err, object.KindUnavailable)
		for _, i := range lost {
			if shards[i] != nil {
				t.Fatal("a shard was made up")
			}
		}
	})
}

func TestArguments(t *testing.T) {
	for _, km := range [][2]int{{0, 1}, {1, 0}, {-1, 3}, {60, 5}, {1 << 62, 1 << 62}} {
		_, err := New(km[0], km[1])
		wantKind(t, err, object.KindInvalid)
	}
	data := []byte("some bytes that are cut")
	c, whole := encode(t, 4, 2, data)
	for _, bad := range [][]byte{nil, make([]byte, MaxData+1)} {
		_, err := c.Encode(bad)
		wantKind(t, err, object.KindInvalid)
	}
	wantKind(t, c.Reconstruct(whole[:5], nil), object.KindInvalid)
	wantKind(t, c.Reconstruct(whole, []int{6}), object.KindInvalid)
	for _, size := range []int{0, -1, 20, 25, MaxData + 1} {
		_, err := c.Join(clone(whole, nil), size)
		wantKind(t, err, object.KindInvalid)
	}
	uneven := clone(whole, nil)
	uneven[3] = uneven[3][1:]
	wantKind(t, c.Reconstruct(uneven, nil), object.KindInvalid)
	_, err := c.Verify(clone(whole, []int{0}))
	wantKind(t, err, object.KindInvalid)
	wrong := clone(whole, nil)
	wrong[1][0] ^= 1
	if ok, err := c.Verify(wrong); ok || err != nil {
		t.Fatalf("verify of a wrong shard: %v, %v", ok, err)
	}
	if c.DataShards() != 4 || c.ParityShards() != 2 {
		t.Fatal("k and m")
	}
}

func BenchmarkEncode(b *testing.B) {
	data := make([]byte, 4<<20)
	rand.Read(data)
	for _, km := range [][2]int{{2, 1}, {4, 2}, {8, 3}} {
		b.Run(fmt.Sprintf("%d+%d", km[0], km[1]), func(b *testing.B) {
			c, shards := encode(b, km[0], km[1], data)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				shards, _ = c.Encode(data)
			}
			shards[0] = nil
			if got, err := c.Join(shards, len(data)); err != nil || !bytes.Equal(got, data) {
				b.Fatal(err)
			}
		})
	}
}
