package api

import (
	"net/http"

	"github.com/skshohagmiah/bucketdb/storage/object"
)

// Problem is the body of every error answer. It is also what the Client puts
// into object.Error.Err, so errors.As(err, &problem) yields hint and request id.
type Problem struct {
	Kind      string `json:"kind"`       // object.Kind by name
	Message   string `json:"message"`    // what happened
	Hint      string `json:"hint"`       // what to do
	RequestID string `json:"request_id"` // to find it in the server's log
}

// Error is the message.
func (p *Problem) Error() string { return p.Message }

// verdict is how one kind shows itself over HTTP.
type verdict struct {
	status int
	hint   string
}

// verdictOf is the one table from kinds to HTTP status and advice.
func verdictOf(k object.Kind) verdict {
	switch k {
	case object.KindNotFound:
		return verdict{404, "check the bucket and the key; GET /buckets/BUCKET/objects lists what is there"}
	case object.KindExists:
		return verdict{409, "choose another name, or remove what holds it first"}
	case object.KindNotEmpty:
		return verdict{409, "remove the entries inside first"}
	case object.KindIsDirectory:
		return verdict{409, "a directory has this name: use a key below it, or the key with a trailing '/'"}
	case object.KindNotDirectory:
		return verdict{409, "part of the path is a file: choose another path, or remove the file first"}
	case object.KindInvalid:
		return verdict{400, "correct the request; GET /openapi.json describes every operation"}
	case object.KindNameTooLong:
		return verdict{400, "shorten the name: a key has up to 1024 bytes, a bucket's name up to 63"}
	case object.KindTooLarge:
		return verdict{413, "send it as a multipart upload (POST ?uploads), whose total has no such limit, or raise the limit of the server"}
	case object.KindNoSpace:
		return verdict{507, "free space on the node's disks, or add storage"}
	case object.KindQuota:
		return verdict{507, "remove objects from the bucket, or have its quota raised"}
	case object.KindPermission:
		return verdict{403, "ask the owner for access"}
	case object.KindUnauthenticated:
		return verdict{401, "send valid credentials"}
	case object.KindReadOnly:
		return verdict{403, "this cannot be changed; write to another name"}
	case object.KindPrecondition:
		return verdict{412, "the object is not in the state you named: read it again and decide"}
	case object.KindNotModified:
		return verdict{304, "use the copy you have"}
	case object.KindRange:
		return verdict{416, "ask for a range inside the object; HEAD tells its size"}
	case object.KindDigest:
		return verdict{400, "the body differs from its declared digest and nothing was stored: send it again"}
	case object.KindIncomplete:
		return verdict{400, "the body ended early and nothing was stored: send it again"}
	default:
		return verdictOfFault(k)
	}
}

// verdictOfFault is the second half of the table: what is not the request's fault alone.
func verdictOfFault(k object.Kind) verdict {
	switch k {
	case object.KindCorrupt:
		return verdict{500, "stored bytes failed their checksum and were not served: look at the node's log and restore the object"}
	case object.KindUnavailable:
		return verdict{503, "try again in a moment, here or through another node"}
	case object.KindTimeout:
		return verdict{504, "it may or may not have happened: ask again with the same token, or look"}
	case object.KindCanceled:
		return verdict{499, "the request was given up by its client"}
	case object.KindConflict:
		return verdict{409, "another change came first: try again"}
	case object.KindStale:
		return verdict{410, "the file is gone: look its name up again"}
	case object.KindTooManyLinks:
		return verdict{409, "make a copy instead of another link"}
	case object.KindLoop:
		return verdict{409, "a directory cannot move below itself: choose another target"}
	case object.KindCrossDevice:
		return verdict{409, "copy it and remove the source"}
	case object.KindNotSupported:
		return verdict{501, "this is not done here; GET /openapi.json lists what is"}
	case object.KindBusy:
		return verdict{409, "it is in use: try again later"}
	case object.KindVersion:
		return verdict{500, "run the same version of bucketdb everywhere"}
	case object.KindBucketNotFound:
		return verdict{404, "create the bucket first (POST /buckets), or check its name"}
	case object.KindBucketExists:
		return verdict{409, "use the bucket that is there, or choose another name"}
	case object.KindNoAttr:
		return verdict{404, "set the attribute first, or check its name"}
	case object.KindOverload:
		return verdict{503, "the server has too many requests in flight: try again in a moment"}
	case object.KindSessionEnded:
		return verdict{409, "begin a new session; what the old one's locks guarded may have been changed by others: look at it again"}
	case object.KindDeadlock:
		return verdict{409, "give up the locks that others wait for, then try again"}
	case object.KindNoLocks:
		return verdict{409, "lock larger ranges, or give up locks of this file"}
	default:
		return verdict{500, "look for the request id in the server's log, and report it"}
	}
}

// Status is the HTTP status of a kind.
func Status(k object.Kind) int { return verdictOf(k).status }

// Hint is what to do about a kind of error.
func Hint(k object.Kind) string { return verdictOf(k).hint }

// kindOfStatus guesses the kind of an answer that does not say it, such as a proxy's.
func kindOfStatus(status int) object.Kind {
	switch status {
	case http.StatusUnauthorized:
		return object.KindUnauthenticated
	case http.StatusForbidden:
		return object.KindPermission
	case http.StatusNotFound:
		return object.KindNotFound
	case http.StatusNotModified:
		return object.KindNotModified
	case http.StatusPreconditionFailed:
		return object.KindPrecondition
	case http.StatusRequestEntityTooLarge:
		return object.KindTooLarge
	case http.StatusRequestedRangeNotSatisfiable:
		return object.KindRange
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return object.KindTimeout
	case http.StatusTooManyRequests:
		return object.KindOverload
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return object.KindUnavailable
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return object.KindNotSupported
	}
	if status >= 400 && status < 500 {
		return object.KindInvalid
	}
	return object.KindInternal
}
