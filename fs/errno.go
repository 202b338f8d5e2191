package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// errnoOf is the one table from kinds to errno. A kind that a program cannot
// act upon is EIO.
func errnoOf(k object.Kind) syscall.Errno {
	switch k {
	case object.KindNotFound, object.KindBucketNotFound:
		return syscall.ENOENT
	case object.KindExists, object.KindBucketExists:
		return syscall.EEXIST
	case object.KindNotEmpty:
		return syscall.ENOTEMPTY
	case object.KindIsDirectory:
		return syscall.EISDIR
	case object.KindNotDirectory:
		return syscall.ENOTDIR
	case object.KindInvalid, object.KindRange:
		return syscall.EINVAL
	case object.KindNameTooLong:
		return syscall.ENAMETOOLONG
	case object.KindTooLarge:
		return syscall.EFBIG
	case object.KindNoSpace:
		return syscall.ENOSPC
	case object.KindQuota:
		return syscall.EDQUOT
	case object.KindPermission, object.KindUnauthenticated:
		return syscall.EACCES
	case object.KindReadOnly:
		return syscall.EROFS
	case object.KindCanceled:
		return syscall.EINTR
	case object.KindStale:
		return syscall.ESTALE
	case object.KindTooManyLinks:
		return syscall.EMLINK
	case object.KindLoop:
		return syscall.EINVAL // rename below itself; the kernel counts symlinks
	case object.KindCrossDevice:
		return syscall.EXDEV
	case object.KindNotSupported:
		return syscall.ENOTSUP
	case object.KindBusy:
		return syscall.EBUSY
	case object.KindNoAttr:
		return syscall.ENODATA
	}
	return syscall.EIO
}

// status is the answer to the kernel for err.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	return fuse.Status(errnoOf(object.KindOf(err)))
}

// statusOfInode is status for an operation on an inode that the kernel knows:
// where that is gone the handle is stale.
func statusOfInode(err error) fuse.Status {
	if object.IsKind(err, object.KindNotFound) {
		return fuse.Status(syscall.ESTALE)
	}
	return status(err)
}
