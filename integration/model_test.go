package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/skshohagmiah/bucketdb"
	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// store is what the model test drives: one bucket through one door. Missing
// objects are KindNotFound (or fs.ErrNotExist).
type store interface {
	Put(key string, body []byte) error
	Get(key string) ([]byte, error)
	Delete(key string) error
	Rename(key, to string) error
	Copy(key, to string) error
	List(prefix string) ([]string, error)
}

// inPlace is a store that changes files in place.
type inPlace interface {
	WriteAt(key string, off int64, data []byte) error
	Append(key string, data []byte) error
	Truncate(key string, size int64) error
}

// model is the reference: keys and contents.
type model map[string][]byte

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || object.IsKind(err, object.KindNotFound)
}

// modelKeys overlap as paths do: files and directories below each other's parents.
var modelKeys = []string{"a", "b", "d/a", "d/b", "d/e/f", "d/e/g", "d-", "d0", "x/y/z/w", "ü/ß"}

// checkModel runs random operations against a store and the model; reset empties the store.
func checkModel(t *testing.T, open func(t *rapid.T) store) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := open(t), model{}
		key := rapid.SampledFrom(modelKeys)
		size := rapid.SampledFrom([]int{0, 1, 100, 4096, object.MaxInline, object.MaxInline + 1, 70000})
		data := func() []byte {
			b := make([]byte, size.Draw(t, "size"))
			rand.New(rand.NewSource(int64(len(b)))).Read(b)
			if len(b) > 0 {
				b[0] = byte(rapid.IntRange(0, 255).Draw(t, "first"))
			}
			return b
		}
		agree := func(t *rapid.T, op string, err error, there bool) {
			if there && err != nil || !there && !missing(err) {
				t.Fatalf("%s of a key that %s: %v", op, map[bool]string{true: "exists", false: "does not exist"}[there], err)
			}
		}
		actions := map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, b := key.Draw(t, "key"), data()
				if err := s.Put(k, b); err != nil {
					t.Fatalf("put %s: %v", k, err)
				}
				m[k] = b
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				_, there := m[k]
				agree(t, "delete", s.Delete(k), there)
				delete(m, k)
			},
			"rename": func(t *rapid.T) {
				k, to := key.Draw(t, "key"), key.Draw(t, "to")
				b, there := m[k]
				agree(t, "rename", s.Rename(k, to), there)
				if there {
					delete(m, k)
					m[to] = b
				}
			},
			"copy": func(t *rapid.T) {
				k, to := key.Draw(t, "key"), key.Draw(t, "to")
				b, there := m[k]
				if k == to {
					return
				}
				agree(t, "copy", s.Copy(k, to), there)
				if there {
					m[to] = b
				}
			},
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				got, err := s.Get(k)
				want, there := m[k]
				agree(t, "get", err, there)
				if !bytes.Equal(got, want) {
					t.Fatalf("get %s: %d bytes that differ from the model's %d", k, len(got), len(want))
				}
			},
			"list": func(t *rapid.T) {
				prefix := rapid.SampledFrom([]string{"", "d", "d/", "d/e/", "x/y", "nothing"}).Draw(t, "prefix")
				got, err := s.List(prefix)
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for k := range m {
					if strings.HasPrefix(k, prefix) {
						want = append(want, k)
					}
				}
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("list %q: got %q, want %q", prefix, got, want)
				}
			},
		}
		if w, ok := s.(inPlace); ok {
			existing := func(t *rapid.T) string {
				k := key.Draw(t, "key")
				if _, ok := m[k]; !ok {
					t.Skip("no such key")
				}
				return k
			}
			actions["write"] = func(t *rapid.T) {
				k, b, off := existing(t), data(), rapid.Int64Range(0, 100000).Draw(t, "offset")
				if err := w.WriteAt(k, off, b); err != nil {
					t.Fatal(err)
				}
				if len(b) > 0 {
					old := resize(m[k], max(len(m[k]), int(off)+len(b)))
					copy(old[off:], b)
					m[k] = old
				}
			}
			actions["append"] = func(t *rapid.T) {
				k, b := existing(t), data()
				if err := w.Append(k, b); err != nil {
					t.Fatal(err)
				}
				m[k] = append(slices.Clone(m[k]), b...)
			}
			actions["truncate"] = func(t *rapid.T) {
				k, size := existing(t), rapid.Int64Range(0, 100000).Draw(t, "size")
				if err := w.Truncate(k, size); err != nil {
					t.Fatal(err)
				}
				m[k] = resize(m[k], int(size))
			}
		}
		t.Repeat(actions)
	})
}

// resize is a copy of b that is n bytes long.
func resize(b []byte, n int) []byte {
	out := make([]byte, n)
	copy(out, b)
	return out
}

// serial makes names for buckets, which each case of rapid gets anew.
type serial struct{ n int }

func (s *serial) bucket() string {
	s.n++
	return fmt.Sprintf("model%06d", s.n)
}

func TestModelLibrary(t *testing.T) {
	cfg := bucketdb.DefaultConfig()
	cfg.StoragePath, cfg.MetadataPath = filepath.Join(t.TempDir(), "chunks"), filepath.Join(t.TempDir(), "metadata")
	db, err := bucketdb.NewBucketDB(cfg)
	check(t, err)
	t.Cleanup(func() { check(t, db.Close()) })
	var names serial
	checkModel(t, func(t *rapid.T) store {
		s := libraryStore{db, names.bucket()}
		if err := db.CreateBucket(s.bucket, "me"); err != nil {
			t.Fatal(err)
		}
		return s
	})
}

type libraryStore struct {
	db     *bucketdb.BucketDB
	bucket string
}

func (s libraryStore) Put(k string, b []byte) error { return s.db.PutObject(s.bucket, k, b, nil) }
func (s libraryStore) Get(k string) ([]byte, error) { return s.db.GetObject(s.bucket, k, nil) }
func (s libraryStore) Delete(k string) error        { return s.db.DeleteObject(s.bucket, k) }
func (s libraryStore) Rename(k, to string) error    { return s.db.RenameObject(s.bucket, k, s.bucket, to) }
func (s libraryStore) Copy(k, to string) (err error) {
	_, err = s.db.CopyObject(s.bucket, k, s.bucket, to)
	return err
}
func (s libraryStore) List(p string) ([]string, error) {
	var keys []string
	for o, err := range s.db.AllObjects(context.Background(), s.bucket, p) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

func TestModelREST(t *testing.T) {
	n := startNode(t)
	c := client(t, n, api.ClientOptions{})
	var names serial
	checkModel(t, func(t *rapid.T) store {
		s := restStore{c, names.bucket()}
		if _, err := c.CreateBucket(context.Background(), s.bucket, "me"); err != nil {
			t.Fatal(err)
		}
		return s
	})
}

type restStore struct {
	c      *api.Client
	bucket string
}

func (s restStore) Put(k string, b []byte) error {
	_, err := s.c.Put(context.Background(), s.bucket, k, bytes.NewReader(b), api.PutOptions{})
	return err
}

func (s restStore) Get(k string) ([]byte, error) {
	r, err := s.c.Get(context.Background(), s.bucket, k, api.GetOptions{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (s restStore) Delete(k string) error {
	return s.c.Delete(context.Background(), s.bucket, k, api.Conditions{})
}

func (s restStore) Rename(k, to string) error {
	return s.c.RenameObject(context.Background(), s.bucket, k, api.Target{Bucket: api.Name(s.bucket), Key: api.Name(to)})
}

func (s restStore) Copy(k, to string) error {
	_, err := s.c.Copy(context.Background(), s.bucket, k, api.Target{Bucket: api.Name(s.bucket), Key: api.Name(to)}, api.Conditions{})
	return err
}

func (s restStore) List(p string) ([]string, error) {
	var keys []string
	o := api.ListOptions{Prefix: p, Limit: 3} // pages
	for {
		page, err := s.c.List(context.Background(), s.bucket, o)
		if err != nil {
			return nil, err
		}
		for _, ob := range page.Objects {
			keys = append(keys, string(ob.Key))
		}
		if page.Cursor == "" {
			return keys, nil
		}
		o.Cursor = page.Cursor
	}
}

func (s restStore) inode(k string) (object.InodeID, error) {
	i, err := s.c.Attributes(context.Background(), s.bucket, k)
	if err != nil {
		return 0, err
	}
	return i.ID, nil
}

func (s restStore) WriteAt(k string, off int64, b []byte) error {
	id, err := s.inode(k)
	if err == nil {
		_, _, err = s.c.Write(context.Background(), id, off, bytes.NewReader(b), api.WriteOptions{})
	}
	return err
}

func (s restStore) Append(k string, b []byte) error {
	id, err := s.inode(k)
	if err == nil {
		_, _, err = s.c.Append(context.Background(), id, bytes.NewReader(b), api.WriteOptions{})
	}
	return err
}

func (s restStore) Truncate(k string, size int64) error {
	id, err := s.inode(k)
	if err == nil {
		_, err = s.c.SetAttr(context.Background(), id, api.SetAttr{Size: &size})
	}
	return err
}

func TestModelMount(t *testing.T) {
	n := startNode(t)
	m := mount(t, n, "")
	var names serial
	checkModel(t, func(t *rapid.T) store {
		s := mountStore{filepath.Join(m.Dir, names.bucket())}
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// mountStore keeps keys as files; directories are made and removed as S3 would.
type mountStore struct{ dir string }

func (s mountStore) path(k string) string { return filepath.Join(s.dir, k) }

func (s mountStore) Put(k string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(s.path(k)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.path(k), b, 0o644)
}

func (s mountStore) Get(k string) ([]byte, error) { return os.ReadFile(s.path(k)) }
func (s mountStore) Delete(k string) error        { return os.Remove(s.path(k)) }

func (s mountStore) Rename(k, to string) error {
	if _, err := os.Stat(s.path(k)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path(to)), 0o755); err != nil {
		return err
	}
	return os.Rename(s.path(k), s.path(to))
}

func (s mountStore) Copy(k, to string) error {
	b, err := s.Get(k)
	if err != nil {
		return err
	}
	return s.Put(to, b)
}

func (s mountStore) List(p string) ([]string, error) {
	var keys []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if k, _ := filepath.Rel(s.dir, path); strings.HasPrefix(k, p) {
			keys = append(keys, k)
		}
		return nil
	})
	slices.Sort(keys)
	return keys, err
}

func (s mountStore) WriteAt(k string, off int64, b []byte) error {
	f, err := os.OpenFile(s.path(k), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

func (s mountStore) Append(k string, b []byte) error {
	f, err := os.OpenFile(s.path(k), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func (s mountStore) Truncate(k string, size int64) error {
	return syscall.Truncate(s.path(k), size)
}
