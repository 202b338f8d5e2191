package object

import "testing"

func TestSchemesHaveOneForm(t *testing.T) {
	seen := map[Scheme][2]int{}
	for raw := range 1 << 16 {
		s := Scheme(raw)
		data, parity := s.Split()
		again, err := NewScheme(data, parity)
		if canonical := err == nil && again == s; canonical != (s.Check() == nil) {
			t.Fatalf("%#x is %d+%d, made again %#x, %v; Check says %v", raw, data, parity, again, err, s.Check())
		} else if canonical {
			seen[s] = [2]int{data, parity}
		} else if !IsKind(s.Check(), KindInvalid) {
			t.Fatal(s.Check())
		}
	}
	// 1+0 to 1+63, and for k from 2 to 63 one to 64-k parity shards.
	if want := 64 + 62*63/2 + 0; len(seen) != want {
		t.Fatalf("%d schemes, want %d", len(seen), want)
	}
	if s, err := NewScheme(1, 2); err != nil || s != DefaultScheme || seen[s] != [2]int{1, 2} {
		t.Fatal("the default is three copies", s, err, seen[s])
	}
	for _, bad := range [][2]int{{0, 1}, {2, 0}, {1, -1}, {60, 5}, {1, 64}, {-1, 3}, {257, 0}, {1, 256}} {
		if s, err := NewScheme(bad[0], bad[1]); !IsKind(err, KindInvalid) {
			t.Fatal(bad, s, err)
		}
	}
}
