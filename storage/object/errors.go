package object

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Kind says what went wrong, in a form that crosses the wire. The list is
// append-only: a number, once given, keeps its meaning.
type Kind uint16

// The kinds.
const (
	KindInternal        Kind = iota // a fault of ours, or one without a kind
	KindNotFound                    // no such object, file or upload
	KindExists                      // the name is taken
	KindNotEmpty                    // the directory or bucket has entries
	KindIsDirectory                 // a file was asked for, a directory is there
	KindNotDirectory                // a directory was asked for, something else is there
	KindInvalid                     // the request itself is wrong
	KindNameTooLong                 // a name or key is too long
	KindTooLarge                    // the body is larger than allowed
	KindNoSpace                     // the disk is full
	KindQuota                       // the bucket's quota is used up
	KindPermission                  // known, but not allowed
	KindUnauthenticated             // no valid credentials
	KindReadOnly                    // this may not be changed
	KindPrecondition                // a condition (If-Match ...) does not hold
	KindNotModified                 // the client's copy is current
	KindRange                       // no byte of the range exists
	KindDigest                      // body and declared digest differ
	KindIncomplete                  // the body ended before its declared length
	KindCorrupt                     // stored bytes fail their checksum
	KindUnavailable                 // no quorum, no leader, shutting down: try again
	KindTimeout                     // the deadline passed; whether it happened is unknown
	KindCanceled                    // the caller went away
	KindConflict                    // lost against a concurrent change: try again
	KindStale                       // the inode is gone (ESTALE)
	KindTooManyLinks                // nlink is at its limit
	KindLoop                        // a directory cannot move below itself; too many symlinks
	KindCrossDevice                 // not possible between these two (EXDEV)
	KindNotSupported                // not done here
	KindBusy                        // in use
	KindVersion                     // data or peer of another format version
	KindBucketNotFound              // no such bucket
	KindBucketExists                // the bucket's name is taken
	KindNoAttr                      // no such extended attribute
	KindOverload                    // too many requests in flight: try again
	KindSessionEnded                // the client's session was ended: its locks are lost, its changes refused
	KindDeadlock                    // to wait for this lock would be to wait for ever (EDEADLK)
	KindNoLocks                     // no more locks are possible on this file (ENOLCK)
	kindCount
)

var kindNames = [kindCount]string{
	"Internal", "NotFound", "AlreadyExists", "NotEmpty", "IsDirectory", "NotDirectory", "InvalidArgument",
	"NameTooLong", "TooLarge", "NoSpace", "QuotaExceeded", "PermissionDenied", "Unauthenticated", "ReadOnly",
	"PreconditionFailed", "NotModified", "RangeNotSatisfiable", "DigestMismatch", "IncompleteBody", "Corrupt",
	"Unavailable", "Timeout", "Canceled", "Conflict", "Stale", "TooManyLinks", "Loop", "CrossDevice",
	"NotSupported", "Busy", "VersionMismatch", "BucketNotFound", "BucketAlreadyExists", "NoAttribute", "Overload",
	"SessionEnded", "Deadlock", "NoLocks",
}

// String is the kind's name on the wire.
func (k Kind) String() string {
	if k < kindCount {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint16(k))
}

// ParseKind is String's inverse; an unknown name (a newer peer's) is KindInternal.
func ParseKind(s string) Kind {
	for k, name := range kindNames {
		if name == s {
			return Kind(k)
		}
	}
	return KindInternal
}

// Error is BucketDB's one error type. Err, where present, says more than the kind does.
type Error struct {
	Op     string // the operation, such as "put"
	Bucket string
	Key    string
	Kind   Kind
	Err    error
}

// Error is "op bucket/key: what (Kind)".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
	}
	if e.Bucket != "" || e.Key != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Bucket)
		if e.Key != "" {
			b.WriteString("/" + e.Key)
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Err != nil {
		b.WriteString(e.Err.Error())
		return b.String()
	}
	b.WriteString(e.Kind.String())
	return b.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Kind: k}) ask for the kind alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Op == "" && t.Bucket == "" && t.Key == "" && t.Err == nil && t.Kind == e.Kind
}

// Errorf makes an error of a kind with a message for the person who meets it.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// KindOf is the kind of an error: that of the outermost *Error in its chain, or
// what the standard library's error amounts to. A nil error has no kind; do not ask.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	case errors.Is(err, context.Canceled):
		return KindCanceled
	case errors.Is(err, syscall.ENOSPC):
		return KindNoSpace
	case errors.Is(err, syscall.EDQUOT):
		return KindQuota
	case errors.Is(err, fs.ErrNotExist):
		return KindNotFound
	case errors.Is(err, fs.ErrExist):
		return KindExists
	case errors.Is(err, fs.ErrPermission):
		return KindPermission
	}
	return KindInternal
}

// IsKind reports whether err is an error of kind k.
func IsKind(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// WithOp returns err with operation and name filled in where they are missing.
func WithOp(err error, op, bucket, key string) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		c := *e
		if c.Op == "" {
			c.Op = op
		}
		if c.Bucket == "" && c.Key == "" {
			c.Bucket, c.Key = bucket, key
		}
		return &c
	}
	return &Error{Op: op, Bucket: bucket, Key: key, Kind: KindOf(err), Err: err}
}
