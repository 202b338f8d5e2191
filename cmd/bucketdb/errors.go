package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/skshohagmiah/bucketdb/server/api"
	"github.com/skshohagmiah/bucketdb/storage/object"
)

// usageError is a command line that cannot be carried out as it stands.
type usageError struct {
	command string
	err     error
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

func usagef(command, format string, args ...any) error {
	return &usageError{command: command, err: fmt.Errorf(format, args...)}
}

// advised is an error together with what to do about it.
type advised struct {
	error
	advice string
}

func (a *advised) Unwrap() error { return a.error }

// advise adds to err what to do about it; a nil error stays nil.
func advise(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &advised{err, fmt.Sprintf(format, args...)}
}

// complaint is what a person reads of an error: what happened, and what to do.
func complaint(err error) string {
	text := "bucketdb: " + strings.TrimSpace(plain(err)) + "\n"
	if advice := adviceFor(err); advice != "" {
		text += "  " + advice + "\n"
	}
	return text
}

// plain is the error's text. Server and client both name the operation and the
// object; once is enough.
func plain(err error) string {
	text := err.Error()
	var problem *api.Problem
	if !errors.As(err, &problem) {
		return text
	}
	if prefix, _, ok := strings.Cut(text, problem.Message); ok && strings.HasPrefix(problem.Message, prefix) {
		return text[len(prefix):]
	}
	return text
}

func adviceFor(err error) string {
	var usage *usageError
	var own *advised
	var problem *api.Problem
	switch {
	case errors.As(err, &usage):
		return "Try '" + strings.TrimSpace(usage.command) + " --help'."
	case errors.As(err, &own):
		return own.advice
	case errors.As(err, &problem):
		advice := problem.Hint
		if problem.RequestID != "" && object.KindOf(err) == object.KindInternal {
			advice += " (request " + problem.RequestID + ")"
		}
		return advice
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there: start a node with 'bucketdb server', or name one with --endpoint URL."
	case errors.Is(err, context.Canceled):
		return ""
	}
	if k := object.KindOf(err); errors.As(err, new(*object.Error)) && adviceKinds(k) {
		return api.Hint(k)
	}
	return ""
}

// adviceKinds are those whose advice means something also where it was not a
// server that answered.
func adviceKinds(k object.Kind) bool {
	switch k {
	case object.KindNoSpace, object.KindUnavailable, object.KindOverload, object.KindCorrupt, object.KindTimeout:
		return true
	}
	return false
}
