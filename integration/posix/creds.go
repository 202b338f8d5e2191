package posix

import (
	"syscall"
	"unsafe"
)

// setGroups sets the supplementary groups of this thread only: the standard
// library's call would set those of the whole process.
func setGroups(list []uint32) error {
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])), 0); e != 0 {
		return e
	}
	return nil
}
