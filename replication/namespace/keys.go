package namespace

import (
	"encoding/binary"
	"strings"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Keys, relative to the partition; all integers big-endian, so that byte order
// is numeric order. DESIGN.md beside package replication lists what stands
// under each.
const (
	keyDentry  = 'd' // directory(8) fragment(2) stored name → dentryRec
	keyInode   = 'i' // inode(8) → inodeRec
	keyInline  = 'n' // inode(8) → content of a small file
	keyExtent  = 'e' // content(16) offset(8) → object.Extent
	keyRetired = 'y' // content(16) retired at(8) offset(8) → object.Extent
	keyGarbage = 'o' // retired at(8) ordinal(1) → garbageRec
	keyChunk   = 'c' // upload(16) ordinal(4) → chunkRec
	keyForeign = 'f' // chunk id(22) → foreignRec: a chunk of another owner that extents here name
	keyRelease = 'r' // upload(16) ordinal(4) → releaseRec or nothing: refs fell to zero, holders may still have the file
	keyRefused = 'u' // upload(16) → nothing: no chunk of this upload may be committed any more
	keyStaged  = 'g' // content(16) → stagedRec
	keyTx      = 't' // first partition(2) sequence(8) → txRec
	keyOutcome = 'k' // first partition(2) sequence(8) → outcomeRec
	keyMark    = 'w' // first partition(2) → watermark(8)
	keyResult  = 's' // session(16) sequence(8) → Result
	keySession = 'S' // session(16) → sessionRec
	keyUpload  = 'm' // multipart upload(16) → UploadRec
	keyPart    = 'q' // multipart upload(16) number(2) → PartRec
	keyEpoch   = 'E' // → rename epoch(8)
	keyRename  = 'R' // control group only: → DirRename
	keyStray   = 'x' // inode(8) → strayRec: a file with chunks of another scheme than its own
	keyRewrite = 'W' // inode(8) → Rewrite: a directory under which everything gets its scheme
	keyLocks   = 'l' // inode(8) → locksRec
	keyLocker  = 'L' // session(16) inode(8) → nothing: the session has locks on the inode
	keyLease   = 'j' // control group only: session(16) → leaseRec
)

func be64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func inodeKey(i object.InodeID) []byte  { return be64([]byte{keyInode}, uint64(i)) }
func inlineKey(i object.InodeID) []byte { return be64([]byte{keyInline}, uint64(i)) }

func strayKey(i object.InodeID) []byte   { return be64([]byte{keyStray}, uint64(i)) }
func rewriteKey(i object.InodeID) []byte { return be64([]byte{keyRewrite}, uint64(i)) }

// dirPrefix is the start of a directory's entries. The fragment is there so
// that a large directory can be spread later; today there is only fragment 0.
func dirPrefix(dir object.InodeID) []byte {
	return append(be64([]byte{keyDentry}, uint64(dir)), 0, 0)
}

func dentryKey(dir object.InodeID, stored string) []byte {
	return append(dirPrefix(dir), stored...)
}

// storedName is the name under which a dentry is filed: a directory's ends in
// "/", so that the order of dentries is the order of S3's keys and an object
// may stand beside a directory of its name.
func storedName(name string, t object.FileType) string {
	if t == object.TypeDirectory {
		return name + "/"
	}
	return name
}

func plainName(stored string) (name string, dir bool) {
	return strings.CutSuffix(stored, "/")
}

func extentKey(c object.ContentID, off int64) []byte {
	return be64(append([]byte{keyExtent}, c[:]...), uint64(off))
}

func retiredPrefix(c object.ContentID) []byte { return append([]byte{keyRetired}, c[:]...) }

func retiredKey(c object.ContentID, at uint64, off int64) []byte {
	return be64(be64(retiredPrefix(c), at), uint64(off))
}

func garbageKey(at uint64, ord uint8) []byte {
	return append(be64([]byte{keyGarbage}, at), ord)
}

func chunkTail(prefix byte, c object.ChunkID) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{prefix}, c.Upload[:]...), c.Ordinal)
}

func foreignKey(c object.ChunkID) []byte { return c.AppendBinary([]byte{keyForeign}) }

func refusedKey(u object.UploadID) []byte { return append([]byte{keyRefused}, u[:]...) }
func stagedKey(c object.ContentID) []byte { return append([]byte{keyStaged}, c[:]...) }

func txKey(prefix byte, id TxID) []byte {
	return be64(binary.BigEndian.AppendUint16([]byte{prefix}, uint16(id.First)), id.Seq)
}

func markKey(first object.PartitionID) []byte {
	return binary.BigEndian.AppendUint16([]byte{keyMark}, uint16(first))
}

func sessionKey(s object.UploadID) []byte { return append([]byte{keySession}, s[:]...) }

func resultKey(s object.UploadID, seq uint64) []byte {
	return be64(append([]byte{keyResult}, s[:]...), seq)
}

func locksKey(i object.InodeID) []byte { return be64([]byte{keyLocks}, uint64(i)) }

func lockerKey(s object.UploadID, i object.InodeID) []byte {
	return be64(append([]byte{keyLocker}, s[:]...), uint64(i))
}

func leaseKey(s object.UploadID) []byte { return append([]byte{keyLease}, s[:]...) }

func uploadKey(u object.UploadID) []byte { return append([]byte{keyUpload}, u[:]...) }

func partKey(u object.UploadID, number int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{keyPart}, u[:]...), uint16(number))
}

// after is the first key behind every key that starts with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
