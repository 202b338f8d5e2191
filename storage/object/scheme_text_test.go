package object

import (
	"strings"
	"testing"
)

func TestSchemeTexts(t *testing.T) {
	for text, want := range map[string][2]int{"replicated:3": {1, 2}, "replicated:1": {1, 0}, "replicated:64": {1, 63}, "rs:4+2": {4, 2}, "rs:62+2": {62, 2}} {
		s, err := ParseScheme(text)
		data, parity := s.Split()
		if err != nil || s.String() != text || [2]int{data, parity} != want || s.Copies() != (want[0] == 1) || s.Width() != want[0]+want[1] {
			t.Error(text, s, err)
		}
	}
	if s, err := ParseScheme("replicated:3"); err != nil || s != DefaultScheme {
		t.Error("the default has two forms", s, err)
	}
	for _, text := range []string{"", "3", "4+2", "rs", "rs:", "rs:4", "rs:4+0", "rs:4+", "rs:1+2", "rs:+4+2", "rs:04+2", "rs:60+5", "replicated:0", "replicated:65",
		"replicated:+2", "replicated:-1", "replicated", "Replicated:2", "rs:4+2 ", "mirror:2"} {
		s, err := ParseScheme(text)
		if !IsKind(err, KindInvalid) || len(err.Error()) < 20 {
			t.Errorf("%q is %v (%v)", text, s, err)
		}
	}
}

func FuzzParseScheme(f *testing.F) {
	f.Add("rs:4+2")
	f.Add("replicated:3")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScheme(text)
		if err != nil {
			if !IsKind(err, KindInvalid) {
				t.Fatal(err)
			}
			return
		}
		if s.Check() != nil || s.String() != text || strings.TrimSpace(text) != text {
			t.Fatalf("%q is read as %#x, %s", text, uint16(s), s)
		}
	})
}
