package posix

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func aclChecks() []check {
	return []check{
		{"acl stored", true, aclStored},
		{"acl mode", true, aclMode},
		{"acl chmod", true, aclChmod},
		{"acl enforced", true, aclEnforced},
		{"acl inherited", true, aclInherited},
		{"acl umask", true, aclUmask},
		{"acl errors", true, aclErrors},
		{"acl setgid", true, aclSetgid},
	}
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// entry is an entry of an ACL as getfacl prints it: "u::rw", "u:70001:r", "g::",
// "g:80001:rwx", "m::rw", "o::r".
func encodeACL(text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range strings.Fields(text) {
		f := strings.Split(e, ":")
		tag := map[string]uint16{"u": 1, "g": 4, "m": 0x10, "o": 0x20}[f[0]]
		id := uint32(0xffffffff)
		if f[1] != "" {
			tag <<= 1
			id = 0
			for _, c := range f[1] {
				id = id*10 + uint32(c-'0')
			}
		}
		perm := uint16(0)
		for _, c := range f[2] {
			perm |= map[rune]uint16{'r': 4, 'w': 2, 'x': 1}[c]
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

func decodeACL(b []byte) string {
	var out []string
	for b = b[4:]; len(b) >= 8; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		s := map[uint16]string{1: "u:", 2: "u:", 4: "g:", 8: "g:", 0x10: "m:", 0x20: "o:"}[tag]
		if tag == 2 || tag == 8 {
			s += itoa(int(id))
		}
		s += ":"
		for i, c := range "rwx" {
			if perm&(4>>i) != 0 {
				s += string(c)
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func (x *env) setACL(p, name, text string) {
	x.Helper()
	x.ok(unix.Setxattr(p, name, encodeACL(text), 0))
}

// acl wants a path's ACL; "" is none.
func (x *env) acl(p, name, want string, what ...any) {
	x.Helper()
	raw, err := x.value(p, name)
	if want == "" {
		x.is(err, unix.ENODATA, what...)
		return
	}
	if err != nil {
		x.Errorf("%s%s: %v", prefix(what), name, err)
		return
	}
	eq(x, decodeACL([]byte(raw)), want, what...)
}

func aclStored(x *env) {
	f, d := x.file("f", "", 0o640), x.mkdir("d", 0o750)
	x.acl(f, aclAccess, "", "a new file")
	x.acl(d, aclDefault, "", "a new directory")
	const full = "u::rw u:70001:rw g::r g:80001:rwx m::rw o::"
	x.changes(f, "c", "setting an ACL", func() { x.setACL(f, aclAccess, full) })
	x.acl(f, aclAccess, full)
	x.setACL(d, aclDefault, "u::rwx u:70001:rx g::rx m::rx o::")
	x.acl(d, aclDefault, "u::rwx u:70001:rx g::rx m::rx o::")
	x.acl(d, aclAccess, "", "a default ACL is not an access ACL")
	buf := make([]byte, 200)
	n, err := unix.Listxattr(f, buf)
	x.ok(err)
	eq(x, string(buf[:n]), aclAccess+"\x00", "listxattr names the ACL")
	x.ok(unix.Removexattr(f, aclAccess))
	x.acl(f, aclAccess, "", "after removexattr")
	x.mode(f, 0o660, "after the ACL was removed")
	x.ok(unix.Removexattr(d, aclDefault))
	x.acl(d, aclDefault, "")
	x.setACL(d, aclDefault, "u::rwx g::rx o::rx") // three entries are kept as a default ACL
	x.acl(d, aclDefault, "u::rwx g::rx o::rx")
	x.ok(unix.Setxattr(d, aclDefault, encodeACL(""), 0)) // none at all removes it
	x.acl(d, aclDefault, "", "after an empty ACL was set")
}

func aclMode(x *env) {
	f := x.file("f", "", 0o600)
	x.setACL(f, aclAccess, "u::rwx g::rx o::x") // says no more than the mode
	x.acl(f, aclAccess, "", "a minimal ACL")
	x.mode(f, 0o751, "of a minimal ACL")
	x.setACL(f, aclAccess, "u::rw u:70001:rwx g::r m::rx o::")
	x.mode(f, 0o650, "the group's bits are the mask's")
	x.ok(unix.Chmod(f, 0o6750))
	x.setACL(f, aclAccess, "u::rw u:70001:rwx g::r m::rwx o::")
	x.mode(f, 0o6670, "setuid and setgid stay for root")
}

func aclChmod(x *env) {
	f := x.file("f", "", 0o600)
	x.setACL(f, aclAccess, "u::rw u:70001:rwx g::r m::rwx o::")
	x.ok(unix.Chmod(f, 0o754))
	x.acl(f, aclAccess, "u::rwx u:70001:rwx g::r m::rx o::r", "chmod changes owner, mask and other")
	x.mode(f, 0o754)
	x.ok(withFile(f, unix.O_RDWR, func(fd int) error {
		if _, err := unix.Write(fd, []byte("dirty")); err != nil {
			return err
		}
		return unix.Fchmod(fd, 0o640) // travels with the write
	}))
	x.acl(f, aclAccess, "u::rw u:70001:rwx g::r m::r o::", "fchmod of a file with unflushed bytes")
	x.mode(f, 0o640)
}

func aclEnforced(x *env) {
	f := x.file("f", "content", 0o600)
	x.setACL(f, aclAccess, "u::rw u:70001:r u:70002:rw g::r g:80002:rw m::rw o::")
	x.ok(unix.Chown(f, carol, 90000))
	read := func(want error, what string) { x.Helper(); x.is(tryOpen(f, unix.O_RDONLY, 0), want, "read by ", what) }
	write := func(want error, what string) {
		x.Helper()
		x.is(tryOpen(f, unix.O_WRONLY, 0), want, "write by ", what)
	}
	x.as(alice, 90000, func() {
		read(nil, "a named user")
		write(unix.EACCES, "a named user with r")
	})
	x.as(bob, 90001, func() { read(nil, "a named user"); write(nil, "a named user with rw") })
	x.as(70009, guests, func() { write(nil, "a named group") })
	x.as(70009, 90001, func() { write(nil, "a named group among others") }, guests)
	x.as(70009, 90000, func() { read(nil, "the group"); write(unix.EACCES, "the group with r") })
	x.as(70009, 90001, func() { read(unix.EACCES, "others") })
	x.ok(unix.Chmod(f, 0o640)) // the mask
	x.as(bob, 90001, func() { read(nil, "a named user"); write(unix.EACCES, "a named user beyond the mask") })
	x.as(carol, 90001, func() { write(nil, "the owner") })
	x.ok(unix.Removexattr(f, aclAccess))
	x.as(alice, 90001, func() { read(unix.EACCES, "a user named no more") })
	// On a directory.
	d := x.mkdir("d", 0o700)
	x.ok(os.WriteFile(d+"/f", nil, 0o666))
	x.as(alice, staff, func() { x.is(tryOpen(d+"/new", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.EACCES) })
	x.setACL(d, aclAccess, "u::rwx u:70001:rwx g:: m::rwx o::")
	x.as(alice, staff, func() {
		x.ok(tryOpen(d+"/new", unix.O_CREAT|unix.O_WRONLY, 0o600))
		x.ok(unix.Unlink(d + "/f"))
	})
	x.as(bob, staff, func() { x.is(tryOpen(d+"/bobs", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.EACCES) })
	x.as(alice, staff, func() {
		x.is(unix.Setxattr(f, aclAccess, encodeACL("u::rwx g:: o::"), 0), unix.EPERM, "an ACL on another's file")
		x.is(unix.Removexattr(d, aclAccess), unix.EPERM)
	})
}

func aclInherited(x *env) {
	d := x.mkdir("d", 0o777)
	unix.Umask(0o077) // does not count where there is a default ACL
	defer unix.Umask(0)
	const inherit = "u::rwx u:70001:rwx g::rx m::rwx o::x"
	x.setACL(d, aclDefault, inherit)
	x.ok(tryOpen(d+"/f", unix.O_CREAT|unix.O_WRONLY, 0o666))
	x.mode(d+"/f", 0o660)
	x.acl(d+"/f", aclAccess, "u::rw u:70001:rwx g::rx m::rw o::", "open(0666)")
	x.ok(tryOpen(d+"/g", unix.O_CREAT|unix.O_WRONLY, 0o640))
	x.acl(d+"/g", aclAccess, "u::rw u:70001:rwx g::rx m::r o::", "open(0640)")
	x.ok(unix.Mkdir(d+"/sub", 0o777))
	x.acl(d+"/sub", aclDefault, inherit, "a subdirectory's default ACL")
	x.acl(d+"/sub", aclAccess, inherit, "a subdirectory's access ACL")
	x.mode(d+"/sub", 0o771)
	x.ok(unix.Mknod(d+"/p", unix.S_IFIFO|0o666, 0))
	x.acl(d+"/p", aclAccess, "u::rw u:70001:rwx g::rx m::rw o::", "a fifo")
	x.ok(unix.Symlink("f", d+"/l"))
	x.mode(d+"/l", 0o777, "a link inherits none")
	x.ok(tryOpen(d+"/sub/deep", unix.O_CREAT|unix.O_WRONLY, 0o666))
	x.acl(d+"/sub/deep", aclAccess, "u::rw u:70001:rwx g::rx m::rw o::", "two levels down")
	x.as(alice, staff, func() { x.ok(tryOpen(d+"/f", unix.O_RDWR, 0)) })
	x.setACL(d, aclDefault, "u::rwx g::rx o::")
	x.ok(tryOpen(d+"/plain", unix.O_CREAT|unix.O_WRONLY, 0o666))
	x.acl(d+"/plain", aclAccess, "", "a minimal default ACL")
	x.mode(d+"/plain", 0o640)
	x.ok(unix.Removexattr(d, aclDefault))
	x.ok(tryOpen(d+"/masked", unix.O_CREAT|unix.O_WRONLY, 0o666))
	x.mode(d+"/masked", 0o600, "the umask counts again")
}

func aclUmask(x *env) {
	unix.Umask(0o022)
	defer unix.Umask(0)
	x.ok(tryOpen(x.p("f"), unix.O_CREAT|unix.O_WRONLY, 0o666))
	x.mode(x.p("f"), 0o644)
	x.ok(unix.Mkdir(x.p("d"), 0o777))
	x.mode(x.p("d"), 0o755)
	x.ok(unix.Mkfifo(x.p("p"), 0o666))
	x.mode(x.p("p"), 0o644)
}

func aclErrors(x *env) {
	f := x.file("f", "", 0o600)
	for what, acl := range map[string]string{
		"no entry for others": "u::rw g::r", "named without a mask": "u::rw u:70001:r g::r o::", "in the wrong order": "g::r u::rw o::",
		"twice": "u::rw u::r g::r o::", "a mask twice": "u::rw g::r m::r m::r o::",
	} {
		x.is(unix.Setxattr(f, aclAccess, encodeACL(acl), 0), unix.EINVAL, what)
	}
	x.is(unix.Setxattr(f, aclAccess, []byte("nonsense"), 0), unix.EOPNOTSUPP, "another version")
	x.is(unix.Setxattr(f, aclDefault, encodeACL("u::rw g::r o::"), 0), unix.EACCES, "a default ACL on a file")
	x.ok(unix.Symlink("f", x.p("l")))
	x.is(unix.Lsetxattr(x.p("l"), aclAccess, encodeACL("u::rw g::r o::"), 0), unix.EOPNOTSUPP, "an ACL on a link")
}

// An ACL set by an owner who is not in the file's group clears setgid, as chmod does.
func aclSetgid(x *env) {
	f := x.file("f", "", 0o600)
	x.ok(unix.Chown(f, alice, staff))
	x.ok(unix.Chmod(f, 0o2770))
	x.as(alice, staff, func() { x.setACL(f, aclAccess, "u::rwx u:70002:r g::rwx m::rwx o::") })
	x.mode(f, 0o2770, "by one of the group")
	x.as(alice, guests, func() { x.setACL(f, aclAccess, "u::rwx u:70002:rw g::rwx m::rwx o::") })
	x.mode(f, 0o770, "by one who is not")
}
