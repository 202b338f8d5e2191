package replication

import (
	"bytes"
	"context"
	"math/rand"
	"path"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

type step = func(ctx context.Context) error

// steps are changes of every kind, of random sizes, in two halves.
func (c *powerClient) steps(rnd *rand.Rand) (before, after []step) {
	size := func(most int) int { return 1 + rnd.Intn(most) }
	large := func() int { return 70000 + rnd.Intn(130000) }
	before = []step{
		c.put("small", rnd, size(1000)), c.put("large", rnd, 200000), c.put("imp/licit/x", rnd, size(9000)),
		c.mkdir("d1"), c.mkdir("d2"), c.create("d1/f", rnd, large()),
		c.append("d1/f", rnd, size(5000)), c.append("d1/f", rnd, large()), c.append("small", rnd, size(9000)),
		c.write("large", rnd, size(100000), 70000), c.write("large", rnd, size(100000), size(3000)), c.write("d1/f", rnd, 500000, size(100)),
		c.truncate("large", 1000+size(150000)), c.truncate("d1/f", 600000), c.punch("d1/f", size(30000), size(60000)),
		c.xattr("small", "one"), c.link("small", "d2/hard"), c.append("d2/hard", rnd, 17000), c.put("imp/licit/x", rnd, large()),
		c.multipart("m/obj", rnd, 70000+size(1000), size(100)), c.chmod("d1/f", 0o600), c.delete("imp/licit/x"), c.put("big", rnd, 300000),
	}
	after = []step{
		c.append("small", rnd, 10), c.append("small", rnd, 20), c.append("small", rnd, 30), c.append("small", rnd, 40), c.compact("small"),
		c.rename("d2/hard", "d1/moved"), c.renameObject("m/obj", "n/obj"), c.copyTo("large", "copied/here"), c.copyRange("large", "d1/f", 500),
		c.delete("large"), c.rename("d1", "d2/sub"), c.mkdir("d1"), c.renameObject("d2/sub/", "d1/sub/"), c.rmdir("d2"), c.put("n/obj", rnd, large()),
		c.xattr("d1/sub/moved", ""), c.renameObject("copied/here", "n/obj"), c.truncate("n/obj", 0), c.write("n/obj", rnd, 3, size(40000)),
		c.put("big", rnd, 10), c.delete("d1/sub/moved"), c.delete("small"), c.multipart("big", rnd, 70000, 70000),
	}
	return before, after
}

func (c *powerClient) key(name string) string { return c.name + "/" + name }

// at is the inode of a name and the directory it is in.
func (c *powerClient) at(ctx context.Context, name string) (object.InodeID, object.InodeID, error) {
	dir, err := c.n.Resolve(ctx, "box", path.Dir(c.key(name)))
	if err != nil {
		return 0, 0, err
	}
	ino, err := c.n.Lookup(ctx, dir.ID, path.Base(name))
	if object.IsKind(err, object.KindNotFound) {
		return 0, dir.ID, nil
	}
	if err != nil {
		return 0, 0, err
	}
	return ino.ID, dir.ID, nil
}

// on is a step that changes an inode in place.
func (c *powerClient) on(name string, apply func(f *powerFile), run func(ctx context.Context, ino object.InodeID) error) step {
	return func(ctx context.Context) error {
		ino, _, err := c.at(ctx, name)
		if err != nil {
			return err
		}
		return c.do(func(m *powerModel) { apply(m.files[name]) }, func() error { return run(ctx, ino) })
	}
}

func (c *powerClient) put(name string, rnd *rand.Rand, size int) step {
	body := randomBytes(rnd.Int63(), size)
	return func(ctx context.Context) error {
		return c.do(func(m *powerModel) {
			mode := uint32(0o644)
			if old := m.files[name]; old != nil {
				mode = old.mode // a PUT keeps it
			}
			m.files[name] = &powerFile{data: body, mode: mode}
		}, func() error {
			_, err := c.n.Put(ctx, "box", c.key(name), bytes.NewReader(body), PutOptions{Size: int64(size)})
			return err
		})
	}
}

func (c *powerClient) create(name string, rnd *rand.Rand, size int) step {
	body := randomBytes(rnd.Int63(), size)
	return func(ctx context.Context) error {
		_, dir, err := c.at(ctx, name)
		if err != nil {
			return err
		}
		return c.do(func(m *powerModel) { m.files[name] = &powerFile{data: body, mode: 0o640} }, func() error {
			_, err := c.n.CreateWith(ctx, dir, path.Base(name), NewNode{Mode: 0o640}, bytes.NewReader(body), WriteOptions{Size: int64(size)})
			return err
		})
	}
}

func (c *powerClient) multipart(name string, rnd *rand.Rand, sizes ...int) step {
	seed := rnd.Int63()
	return func(ctx context.Context) error {
		up, err := c.n.CreateUpload(ctx, "box", c.key(name), PutOptions{Mode: 0o644})
		if err != nil {
			return err
		}
		var whole []byte
		var parts []Part
		for i, size := range sizes {
			body := randomBytes(seed+int64(i), size)
			p, err := c.n.PutPart(ctx, "box", c.key(name), up.ID, i+1, bytes.NewReader(body), int64(size))
			if err != nil {
				return err
			}
			whole, parts = append(whole, body...), append(parts, p)
		}
		return c.do(func(m *powerModel) { m.files[name] = &powerFile{data: whole, mode: 0o644} }, func() error {
			_, err := c.n.CompleteUpload(ctx, "box", c.key(name), up.ID, parts, Conditions{})
			return err
		})
	}
}

func (c *powerClient) write(name string, rnd *rand.Rand, off, size int) step {
	body := randomBytes(rnd.Int63(), size)
	return c.on(name, func(f *powerFile) { f.write(off, body) }, func(ctx context.Context, ino object.InodeID) error {
		_, _, err := c.n.Write(ctx, ino, int64(off), bytes.NewReader(body), WriteOptions{Size: int64(size)})
		return err
	})
}

func (c *powerClient) append(name string, rnd *rand.Rand, size int) step {
	body := randomBytes(rnd.Int63(), size)
	return c.on(name, func(f *powerFile) { f.write(len(f.data), body) }, func(ctx context.Context, ino object.InodeID) error {
		_, _, err := c.n.Write(ctx, ino, 0, bytes.NewReader(body), WriteOptions{Size: int64(size), Append: true})
		return err
	})
}

func (c *powerClient) truncate(name string, size int) step {
	return c.on(name, func(f *powerFile) { f.data = resized(f.data, size) }, func(ctx context.Context, ino object.InodeID) error {
		to := int64(size)
		_, err := c.n.SetAttr(ctx, ino, SetAttr{Size: &to})
		return err
	})
}

func (c *powerClient) punch(name string, off, size int) step {
	return c.on(name, func(f *powerFile) {
		if off < len(f.data) {
			clear(f.data[off:min(off+size, len(f.data))])
		}
	}, func(ctx context.Context, ino object.InodeID) error {
		_, err := c.n.Punch(ctx, ino, int64(off), int64(size), false)
		return err
	})
}

func (c *powerClient) chmod(name string, mode uint32) step {
	return c.on(name, func(f *powerFile) { f.mode = mode }, func(ctx context.Context, ino object.InodeID) error {
		_, err := c.n.SetAttr(ctx, ino, SetAttr{Mode: &mode})
		return err
	})
}

func (c *powerClient) xattr(name, value string) step {
	return c.on(name, func(f *powerFile) { f.xattr = value }, func(ctx context.Context, ino object.InodeID) error {
		if value == "" {
			return c.n.RemoveXattr(ctx, ino, "user.x")
		}
		return c.n.SetXattr(ctx, ino, "user.x", []byte(value), false, false)
	})
}

func (c *powerClient) compact(name string) step {
	return c.on(name, func(*powerFile) {}, func(ctx context.Context, ino object.InodeID) error { return c.n.compactFile(ctx, ino) })
}

func (c *powerClient) mkdir(name string) step {
	return func(ctx context.Context) error {
		_, dir, err := c.at(ctx, name)
		if err != nil {
			return err
		}
		return c.do(func(m *powerModel) { m.dirs[name] = true }, func() error {
			_, _, err := c.n.Create(ctx, dir, path.Base(name), NewNode{Type: object.TypeDirectory, Mode: 0o755}, true)
			return err
		})
	}
}

func (c *powerClient) rmdir(name string) step {
	return func(ctx context.Context) error {
		_, dir, err := c.at(ctx, name)
		if err != nil {
			return err
		}
		return c.do(func(m *powerModel) { delete(m.dirs, name) }, func() error { return c.n.Rmdir(ctx, dir, path.Base(name)) })
	}
}

func (c *powerClient) delete(name string) step {
	return func(ctx context.Context) error {
		return c.do(func(m *powerModel) { delete(m.files, name) }, func() error { return c.n.Delete(ctx, "box", c.key(name), Conditions{}) })
	}
}

func (c *powerClient) link(name, other string) step {
	return func(ctx context.Context) error {
		ino, _, err := c.at(ctx, name)
		if err != nil {
			return err
		}
		_, dir, err := c.at(ctx, other)
		if err != nil {
			return err
		}
		return c.do(func(m *powerModel) { m.files[other] = m.files[name] }, func() error {
			_, err := c.n.Link(ctx, ino, dir, path.Base(other))
			return err
		})
	}
}

// moved is a rename of a file or a directory in the model.
func moved(m *powerModel, from, to string) {
	if f := m.files[from]; f != nil {
		m.files[to] = f
		delete(m.files, from)
		return
	}
	m.moveDir(from, to)
}

func (c *powerClient) rename(from, to string) step {
	return func(ctx context.Context) error {
		_, dir, err := c.at(ctx, from)
		if err != nil {
			return err
		}
		_, newDir, err := c.at(ctx, to)
		if err != nil {
			return err
		}
		return c.do(func(m *powerModel) { moved(m, from, to) }, func() error {
			return c.n.Rename(ctx, dir, path.Base(from), newDir, path.Base(to), RenameFlags{})
		})
	}
}

func (c *powerClient) renameObject(from, to string) step {
	return func(ctx context.Context) error {
		return c.do(func(m *powerModel) { moved(m, path.Clean(from), path.Clean(to)) }, func() error {
			return c.n.RenameObject(ctx, "box", c.key(from), "box", c.key(to), RenameFlags{})
		})
	}
}

func (c *powerClient) copyTo(from, to string) step {
	return func(ctx context.Context) error {
		return c.do(func(m *powerModel) {
			f := m.files[from]
			m.files[to] = &powerFile{data: bytes.Clone(f.data), xattr: f.xattr, mode: f.mode}
		}, func() error {
			_, err := c.n.Copy(ctx, "box", c.key(from), "box", c.key(to), CopyOptions{})
			return err
		})
	}
}

func (c *powerClient) copyRange(from, to string, off int) step {
	return func(ctx context.Context) error {
		src, _, err := c.at(ctx, from)
		if err != nil {
			return err
		}
		dst, _, err := c.at(ctx, to)
		if err != nil {
			return err
		}
		size := len(c.acked.files[from].data)
		return c.do(func(m *powerModel) { m.files[to].write(off, m.files[from].data) }, func() error {
			_, _, err := c.n.CopyRange(ctx, src, 0, dst, int64(off), int64(size))
			return err
		})
	}
}
