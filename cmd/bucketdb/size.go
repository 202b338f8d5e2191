package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a flag that counts bytes: 4194304, 4M, 4MiB and 4MB are the same.
// Units are powers of 1024.
type size int64

// Set reads a size, as pflag.Value.
func (s *size) Set(text string) error {
	digits := strings.TrimRight(text, "kKmMgGtTiIbB ")
	unit := strings.ToUpper(strings.TrimSpace(text[len(digits):]))
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size; write bytes, or a number with K, M, G or T", text)
	}
	shift, ok := map[string]uint{
		"": 0, "B": 0, "K": 10, "KB": 10, "KIB": 10, "M": 20, "MB": 20, "MIB": 20,
		"G": 30, "GB": 30, "GIB": 30, "T": 40, "TB": 40, "TIB": 40,
	}[unit]
	if !ok || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is not a size; write bytes, or a number with K, M, G or T", text)
	}
	*s = size(n << shift)
	return nil
}

// Type is the word in the help text, as pflag.Value.
func (s *size) Type() string { return "SIZE" }

// String writes what Set reads, in the largest unit that is exact.
func (s *size) String() string {
	n := int64(*s)
	for i, unit := range []string{"T", "G", "M", "K"} {
		if shift := uint(40 - 10*i); n != 0 && n%(1<<shift) == 0 {
			return strconv.FormatInt(n>>shift, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}
