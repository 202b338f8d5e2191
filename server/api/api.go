// Package api is BucketDB's REST contract: the shapes that cross the wire, the
// header names, the tables from error kinds to HTTP, and the Client that the
// mount, the command line and the tests use.
//
// The contract shows one namespace two ways: by path under /objects (what curl
// uses) and by inode number under /fs (what a mount uses, so that a handle
// follows the file and not its name). openapi.yaml in package server says the
// same in the form that tools read.
//
// Names are bytes. In a URL they are percent-encoded; in JSON they are a Name.
// Inode numbers are 16 hexadecimal digits. Times that a mount needs are decimal
// strings of nanoseconds since 1970; those that people read are RFC 3339.
package api

// Headers of requests.
const (
	// HeaderSession, HeaderSeq, HeaderAck and HeaderRetry carry the token that
	// makes a mutation exactly-once: 32 hexadecimal digits that name the client
	// process, the mutation's number (from 1), the number up to which no result
	// is needed any more, and "1" when the request may have been sent before.
	HeaderSession = "Bucketdb-Session"
	HeaderSeq     = "Bucketdb-Seq"
	HeaderAck     = "Bucketdb-Ack"
	HeaderRetry   = "Bucketdb-Retry"

	// HeaderNode is a NewNode as JSON, with a create that carries its content.
	HeaderNode = "Bucketdb-Node"
	// HeaderAttr is a SetAttr as JSON: attributes that travel with a write.
	HeaderAttr = "Bucketdb-Attr"

	// HeaderMode (octal), HeaderUID, HeaderGID (decimal) and HeaderMtime
	// (nanoseconds since 1970) describe the file that a PUT makes, and stand in
	// the answers to GET and HEAD (user and group only where one is not 0).
	HeaderMode  = "Bucketdb-Mode"
	HeaderUID   = "Bucketdb-Uid"
	HeaderGID   = "Bucketdb-Gid"
	HeaderMtime = "Bucketdb-Mtime"
)

// Headers of answers.
const (
	// HeaderError is the kind of an error, also where an answer has no body.
	HeaderError = "Bucketdb-Error"
	// HeaderInode and HeaderVersion tell which file and which version of its
	// content was read.
	HeaderInode   = "Bucketdb-Inode"
	HeaderVersion = "Bucketdb-Version"
	// HeaderSHA256 is the SHA-256 of the whole content, hexadecimal, where known.
	HeaderSHA256 = "Bucketdb-Sha256"
)

// Headers of both.
const (
	// HeaderCluster is the id of the cluster. A request that names another than its
	// node's is refused (Unavailable): a client of several nodes must not mix two clusters.
	HeaderCluster = "Bucketdb-Cluster"
	// HeaderRequestID names one request in logs and errors. A client may give
	// one (up to 128 letters, digits, '-', '_', '.').
	HeaderRequestID = "X-Request-Id"
	// HeaderMeta starts the name of each header of user metadata.
	HeaderMeta = "X-Bucketdb-Meta-"
)

// TimeFormat is HTTP's date with one second's resolution, always in GMT.
const TimeFormat = "Mon, 02 Jan 2006 15:04:05 GMT"
