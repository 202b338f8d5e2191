package linear

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/anishathalye/porcupine"
)

// names is the state of a group: the value of each name, "" where there is none.
type names [Names]string

// record is the state of a log.
type record struct {
	length int64
	digest string
}

// Chain is the digest of a log after one append more; "" is that of an empty one.
func Chain(digest, appended string) string {
	sum := sha256.Sum256([]byte(digest + "|" + appended))
	return hex.EncodeToString(sum[:8])
}

// ofNames is a small set of names with values, empty at first.
func ofNames() porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return names{} },
		Step:              func(s, in, out any) (bool, any) { return stepNames(s.(names), in.(Input), out.(Output)) },
		DescribeOperation: describe,
		DescribeState:     func(s any) string { return fmt.Sprintf("%q", s) },
	}
}

// ofLog is one object that is appended to.
func ofLog() porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return record{} },
		Step:              func(s, in, out any) (bool, any) { return stepLog(s.(record), in.(Input), out.(Output)) },
		DescribeOperation: describe,
		DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
	}
}

func stepNames(s names, in Input, out Output) (bool, names) {
	if in.Verb == List {
		for i := in.From; i < in.End; i++ {
			if out.Values[i] != s[i] {
				return false, s
			}
		}
		return true, s
	}
	want, next := judge(s, in)
	switch {
	case out.Result == Unknown:
		return true, next
	case in.Verb == Get && want == OK && out.Value != s[in.Name]:
		return false, s
	}
	return out.Result == want, next
}

// judge is what an operation comes to and what it leaves behind.
func judge(s names, in Input) (Result, names) {
	there := s[in.Name]
	switch {
	case in.Match != "" && there != in.Match, in.Absent && there != "":
		if in.Verb == Delete && there == "" {
			return Missing, s
		}
		return Refused, s
	case in.Verb != Put && there == "":
		return Missing, s
	}
	switch in.Verb {
	case Put:
		s[in.Name] = in.Value
	case Delete:
		s[in.Name] = ""
	case Rename:
		s[in.Name] = ""
		s[in.To] = there
	}
	return OK, s
}

func stepLog(s record, in Input, out Output) (bool, record) {
	if in.Verb == Read {
		return out.Offset == s.length && out.Value == s.digest, s
	}
	next := record{s.length + int64(len(in.Value)), Chain(s.digest, in.Value)}
	return out.Result == Unknown || out.Offset == s.length, next
}

func describe(input, output any) string {
	in, out := input.(Input), output.(Output)
	s := fmt.Sprintf("%s %d", in.Verb, in.Name)
	switch in.Verb {
	case Put:
		s += " := " + in.Value
	case Rename:
		s += fmt.Sprintf(" to %d", in.To)
	case Append:
		s = "append " + in.Value
	case Read:
		s = "read"
	case List:
		return fmt.Sprintf("list %d to %d → %q", in.From, in.End, out.Values)
	}
	if in.Absent {
		s += " if there is none"
	}
	if in.Match != "" {
		s += " if it is " + in.Match
	}
	s += " → " + string(out.Result)
	if out.Value != "" {
		s += " " + out.Value
	}
	if in.Verb == Append || in.Verb == Read {
		s += fmt.Sprintf(" at %d", out.Offset)
	}
	return s
}
