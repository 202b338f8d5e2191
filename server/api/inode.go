package api

import (
	"encoding/hex"
	"encoding/json"
	"sort"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// ID is an inode number on the wire: 16 hexadecimal digits; "" is none.
type ID object.InodeID

// MarshalText writes the digits.
func (i ID) MarshalText() ([]byte, error) {
	if i == 0 {
		return nil, nil
	}
	return []byte(object.InodeID(i).String()), nil
}

// UnmarshalText reads them.
func (i *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*i = 0
		return nil
	}
	id, err := object.ParseInodeID(string(b))
	*i = ID(id)
	return err
}

// Digest is bytes in hexadecimal digits; "" is none.
type Digest []byte

// MarshalText writes the digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d)), nil }

// UnmarshalText reads them.
func (d *Digest) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil {
		return object.Errorf(object.KindInvalid, "%q is not hexadecimal", b)
	}
	*d = raw
	return nil
}

// typeNames are the file types on the wire, indexed by object.FileType.
func typeNames() [8]string {
	return [8]string{"", "file", "dir", "symlink", "fifo", "socket", "char", "block"}
}

// Type is a file type on the wire: "file", "dir", "symlink", "fifo", "socket",
// "char" or "block".
type Type object.FileType

// MarshalText writes the word.
func (t Type) MarshalText() ([]byte, error) {
	names := typeNames()
	if int(t) >= len(names) {
		return nil, object.Errorf(object.KindInternal, "file type %d has no name", t)
	}
	return []byte(names[t]), nil
}

// UnmarshalText reads it.
func (t *Type) UnmarshalText(b []byte) error {
	for i, name := range typeNames() {
		if i > 0 && name == string(b) {
			*t = Type(i)
			return nil
		}
	}
	return object.Errorf(object.KindInvalid, `%q is not a file type (file, dir, symlink, fifo, socket, char or block)`, b)
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  Name   `json:"name"`
	Value []byte `json:"value"`
}

// Inode carries an object.Inode losslessly through JSON, except for the id of
// its content, which is the engine's own affair. The zero Inode is null.
type Inode struct{ *object.Inode }

// wireInode is the JSON of an Inode.
type wireInode struct {
	ID          ID                `json:"inode"`
	Type        Type              `json:"type"`
	Mode        uint32            `json:"mode"`
	UID         uint32            `json:"uid"`
	GID         uint32            `json:"gid"`
	Nlink       uint32            `json:"nlink"`
	Size        int64             `json:"size"`
	Blocks      int64             `json:"blocks,omitempty"`
	Atime       int64             `json:"atime,string"`
	Mtime       int64             `json:"mtime,string"`
	Ctime       int64             `json:"ctime,string"`
	Btime       int64             `json:"btime,string"`
	Version     uint64            `json:"version"`
	Change      uint64            `json:"change"`
	Inline      bool              `json:"inline,omitempty"`
	Target      Name              `json:"target,omitempty"`
	Rdev        uint32            `json:"rdev,omitempty"`
	Parent      ID                `json:"parent,omitzero"`
	Implicit    bool              `json:"implicit,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	ETag        string            `json:"etag,omitempty"` // as readers see it
	GivenETag   bool              `json:"given_etag,omitempty"`
	SHA256      Digest            `json:"sha256,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Xattrs      []Xattr           `json:"xattrs,omitempty"`
}

// MarshalJSON writes the record.
func (i Inode) MarshalJSON() ([]byte, error) {
	n := i.Inode
	if n == nil {
		return []byte("null"), nil
	}
	w := wireInode{
		ID: ID(n.ID), Type: Type(n.Type), Mode: n.Mode, UID: n.UID, GID: n.GID, Nlink: n.Nlink, Size: n.Size, Blocks: n.Blocks,
		Atime: n.Atime, Mtime: n.Mtime, Ctime: n.Ctime, Btime: n.Btime, Version: n.Version, Change: n.Change,
		Inline: n.Inline, Target: Name(n.Target), Rdev: n.Rdev, Parent: ID(n.Parent), Implicit: n.Implicit,
		ContentType: n.ContentType, GivenETag: n.ETagValue != "", SHA256: n.SHA256, Meta: n.Meta,
	}
	if n.Type == object.TypeRegular {
		w.ETag = n.ETag()
	}
	for name, value := range n.Xattrs {
		w.Xattrs = append(w.Xattrs, Xattr{Name(name), value})
	}
	sort.Slice(w.Xattrs, func(a, b int) bool { return w.Xattrs[a].Name < w.Xattrs[b].Name })
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (i *Inode) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		i.Inode = nil
		return nil
	}
	var w wireInode
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	n := &object.Inode{
		ID: object.InodeID(w.ID), Type: object.FileType(w.Type), Mode: w.Mode, UID: w.UID, GID: w.GID, Nlink: w.Nlink, Size: w.Size,
		Blocks: w.Blocks, Atime: w.Atime, Mtime: w.Mtime, Ctime: w.Ctime, Btime: w.Btime, Version: w.Version, Change: w.Change,
		Inline: w.Inline, Target: string(w.Target), Rdev: w.Rdev, Parent: object.InodeID(w.Parent), Implicit: w.Implicit,
		ContentType: w.ContentType, SHA256: w.SHA256, Meta: w.Meta,
	}
	if w.GivenETag {
		n.ETagValue = w.ETag
	}
	if len(w.Xattrs) > 0 {
		n.Xattrs = make(map[string][]byte, len(w.Xattrs))
		for _, x := range w.Xattrs {
			n.Xattrs[string(x.Name)] = x.Value
		}
	}
	i.Inode = n
	return nil
}
