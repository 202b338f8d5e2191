package access

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/skshohagmiah/bucketdb/replication/group"
	"github.com/skshohagmiah/bucketdb/replication/namespace"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// fill sets everything in a value to something else than its zero.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n%100 + 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n%100 + 1))
	case reflect.String:
		v.SetString("\xff" + string(rune('a'+*n%26))) // any bytes, not only UTF-8
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, n)
		fill(t, value, n)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(t, v.Field(i), n)
			}
		}
	default:
		t.Fatalf("a result with a %v", v.Type())
	}
}

// TestResultsCross sends a result in which everything is set: a field that is
// added and does not cross is noticed here.
func TestResultsCross(t *testing.T) {
	t.Parallel()
	r, n := &namespace.Result{}, 0
	fill(t, reflect.ValueOf(r).Elem(), &n)
	r.Doubtful = false // of the node that proposed it more than once
	for _, want := range []*namespace.Result{r, {Index: 7}, {Failed: true, Kind: object.KindExists, Message: "taken"}} {
		a := answer{State: stateDone, Result: want}
		b, err := a.encode()
		must(t, err)
		got, err := decodeAnswer(b)
		must(t, err)
		if !reflect.DeepEqual(got.Result, want) {
			t.Errorf("%+v became %+v", want, got.Result)
		}
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, a := range []answer{{State: stateMore}, {State: stateDone, Result: &namespace.Result{Index: 3, Recalled: true}}, {State: stateRefused, Kind: object.KindUnavailable, Message: "no", Leader: "b"}} {
		b, err := a.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xa1, 1, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(b)
		if err != nil {
			wantKind(t, "rubbish", err, object.KindInternal)
			return
		}
		again, err := a.encode()
		must(t, err)
		if back, err := decodeAnswer(again); err != nil || back.State != a.State || back.Recalled != a.Recalled && a.Result != nil {
			t.Fatalf("%+v became %+v: %v", a, back, err)
		}
	})
}

func FuzzDecodePiece(f *testing.F) {
	for _, p := range []piece{{}, {relay: true, partition: 3, total: 2, data: []byte("ab")}, {partition: 3, total: 4, offset: 2, upload: object.UploadID{1}, data: []byte("cd")}} {
		f.Add(p.encode())
	}
	f.Add(bytes.Repeat([]byte{0xff}, pieceHeader+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePiece(b)
		if err != nil {
			if !object.IsKind(err, object.KindInvalid) && !object.IsKind(err, object.KindNotSupported) {
				t.Error(err)
			}
			return
		}
		if p.total > group.MaxEntry || p.offset+len(p.data) > p.total || !bytes.Equal(p.encode(), b) {
			t.Fatalf("%+v", p)
		}
		s := newSpool()
		defer s.close()
		if !p.whole() {
			if entry, err := s.add("a", p); err == nil && (entry != nil || p.offset != 0) {
				t.Fatal("a piece is an entry")
			}
		}
	})
}

func TestSpool(t *testing.T) {
	t.Parallel()
	s := newSpool()
	send := func(node string, offset, total int, data string) ([]byte, error) {
		return s.add(node, piece{total: total, offset: offset, data: []byte(data)})
	}
	_, err := send("a", 0, 4, "ab")
	must(t, err)
	_, err = send("b", 2, 4, "cd")
	wantKind(t, "another node's piece", err, object.KindUnavailable)
	if e, err := send("a", 2, 4, "cd"); string(e) != "abcd" || err != nil {
		t.Errorf("%q %v", e, err)
	}
	_, err = send("a", 2, 4, "cd")
	wantKind(t, "a piece of what is complete", err, object.KindUnavailable)
	_, err = send("a", 0, 4, "ab")
	must(t, err)
	_, err = send("a", 1, 4, "b")
	wantKind(t, "a piece that came before", err, object.KindUnavailable)
	for i := range byte(spoolBytes / group.MaxEntry) {
		_, err = s.add("a", piece{total: group.MaxEntry, upload: object.UploadID{i}, data: []byte("x")})
		must(t, err)
	}
	_, err = s.add("a", piece{total: group.MaxEntry, upload: object.UploadID{99}, data: []byte("x")})
	wantKind(t, "more than there is room for", err, object.KindOverload)
	key := spoolKey{"a", object.UploadID{0}}
	s.expire(key, s.entries[key])
	_, err = s.add("a", piece{total: group.MaxEntry, upload: object.UploadID{99}, data: []byte("x")})
	must(t, err)
	s.close()
	if s.bytes != 0 {
		t.Errorf("%d bytes are left", s.bytes)
	}
	_, err = send("a", 0, 4, "ab")
	wantKind(t, "a closed node", err, object.KindUnavailable)
}
