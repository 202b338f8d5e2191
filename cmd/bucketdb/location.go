package main

import (
	"path"
	"strings"
)

// scheme marks an argument as a place in the store where a local path could
// stand too (cp); elsewhere it may be left out.
const scheme = "bd://"

// location is a place in the store. Key "" is the bucket itself.
type location struct {
	bucket, key string
}

// parseRemote reads BUCKET[/KEY] or bd://BUCKET[/KEY].
func parseRemote(command, s string) (location, error) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(s, scheme), "/")
	if bucket == "" {
		return location{}, usagef(command, "%q names no bucket; write BUCKET/KEY or %sBUCKET/KEY", s, scheme)
	}
	return location{bucket, key}, nil
}

// parseObject is parseRemote where a key is needed.
func parseObject(command, s string) (location, error) {
	l, err := parseRemote(command, s)
	if err == nil && l.key == "" {
		err = usagef(command, "%q names a bucket; add the object's key: %s%s/KEY", s, scheme, l.bucket)
	}
	return l, err
}

func isRemote(s string) bool { return strings.HasPrefix(s, scheme) }

func (l location) String() string { return scheme + l.bucket + "/" + l.key }

// isDir reports whether it is written as a directory: what goes there goes into it.
func (l location) isDir() bool { return l.key == "" || strings.HasSuffix(l.key, "/") }

// base is the last component of the key, with the "/" of a directory.
func (l location) base() string {
	b := path.Base(l.key)
	if strings.HasSuffix(l.key, "/") {
		b += "/"
	}
	return b
}

// into is the place for something called name: in l when l is a directory, else l itself.
func (l location) into(name string) location {
	if l.isDir() {
		l.key += name
	}
	return l
}

// under is the place of rel below l.
func (l location) under(rel string) location {
	if l.key != "" && !strings.HasSuffix(l.key, "/") {
		l.key += "/"
	}
	l.key += rel
	return l
}
