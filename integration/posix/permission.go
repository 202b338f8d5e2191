package posix

import (
	"os"

	"golang.org/x/sys/unix"
)

func permissionChecks() []check {
	return []check{
		{"permission classes", true, permissionClasses},
		{"permission of names", true, permissionNames},
		{"sticky directory", true, stickyDirectory},
		{"access", true, access},
	}
}

// The class that fits first decides, even when a later one allows more.
func permissionClasses(x *env) {
	f := x.file("f", "content", 0o600)
	x.ok(unix.Chown(f, alice, staff))
	for _, c := range []struct {
		mode     uint32
		uid, gid int
		group    int
		r, w     bool
	}{
		{0o600, alice, staff, 0, true, true}, {0o400, alice, staff, 0, true, false}, {0o200, alice, staff, 0, false, true},
		{0o077, alice, staff, 0, false, false}, // the owner's class, though everybody may
		{0o660, bob, staff, 0, true, true}, {0o640, bob, staff, 0, true, false}, {0o620, bob, staff, 0, false, true},
		{0o606, bob, staff, 0, false, false}, // the group's class
		{0o660, bob, guests, staff, true, true}, {0o600, bob, guests, staff, false, false},
		{0o606, bob, guests, 0, true, true}, {0o604, bob, guests, 0, true, false}, {0o660, bob, guests, 0, false, false},
	} {
		x.ok(unix.Chmod(f, c.mode))
		var groups []int
		if c.group != 0 {
			groups = []int{c.group}
		}
		want := func(may bool) error {
			if may {
				return nil
			}
			return unix.EACCES
		}
		x.as(c.uid, c.gid, func() {
			x.is(tryOpen(f, unix.O_RDONLY, 0), want(c.r), oct(c.mode), " read by ", c.uid, ":", c.gid)
			x.is(tryOpen(f, unix.O_WRONLY, 0), want(c.w), oct(c.mode), " write by ", c.uid, ":", c.gid)
			x.is(tryOpen(f, unix.O_RDWR, 0), want(c.r && c.w), oct(c.mode), " both by ", c.uid, ":", c.gid)
			x.is(unix.Truncate(f, 7), want(c.w), oct(c.mode), " truncate by ", c.uid, ":", c.gid)
		}, groups...)
	}
	x.ok(unix.Chmod(f, 0))
	x.ok(tryOpen(f, unix.O_RDWR, 0)) // root may
}

func permissionNames(x *env) {
	d := x.mkdir("d", 0o755)
	x.ok(os.WriteFile(d+"/f", nil, 0o666))
	x.ok(unix.Mkdir(d+"/e", 0o777))
	x.as(alice, staff, func() {
		x.is(tryOpen(d+"/new", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.EACCES)
		x.is(unix.Mkdir(d+"/new", 0o755), unix.EACCES)
		x.is(unix.Symlink("t", d+"/new"), unix.EACCES)
		x.is(unix.Mkfifo(d+"/new", 0o600), unix.EACCES)
		x.is(unix.Unlink(d+"/f"), unix.EACCES)
		x.is(unix.Rmdir(d+"/e"), unix.EACCES)
		x.is(unix.Rename(d+"/f", x.p("f")), unix.EACCES)
		x.is(unix.Rename(d+"/f", d+"/g"), unix.EACCES)
		own := x.file("own", "", 0o600)
		x.is(unix.Rename(own, d+"/own"), unix.EACCES)
		x.is(unix.Link(own, d+"/own"), unix.EACCES)
		// A directory that changes its parent must be writable itself: its ".." changes.
		x.ok(unix.Mkdir(x.p("to"), 0o755))
		x.ok(unix.Mkdir(x.p("moved"), 0o755))
		x.ok(unix.Rename(x.p("moved"), x.p("to", "moved")))
		x.ok(unix.Chmod(x.p("to", "moved"), 0o555))
		x.is(unix.Rename(x.p("to", "moved"), x.p("moved")), unix.EACCES, "a directory without write permission gets another parent")
		x.ok(unix.Rename(x.p("to", "moved"), x.p("to", "same")))
	})
}

func stickyDirectory(x *env) {
	d := x.mkdir("d", 0o777)
	x.ok(unix.Chmod(d, 0o1777))
	x.ok(unix.Chown(d, carol, staff))
	make := func() {
		x.as(alice, staff, func() {
			for _, name := range []string{"f", "g", "h"} {
				x.ok(os.WriteFile(d+"/"+name, nil, 0o666))
			}
			x.ok(unix.Mkdir(d+"/sub", 0o777))
		})
	}
	make()
	x.as(bob, staff, func() {
		x.is(unix.Unlink(d+"/f"), unix.EPERM, "unlink")
		x.is(unix.Rename(d+"/f", d+"/other"), unix.EPERM, "rename")
		x.is(unix.Rename(d+"/f", x.p("away")), unix.EPERM, "rename away")
		x.is(unix.Rmdir(d+"/sub"), unix.EPERM, "rmdir")
		x.ok(os.WriteFile(d+"/bobs", nil, 0o600))
		x.is(unix.Rename(d+"/bobs", d+"/f"), unix.EPERM, "rename over another's file")
		x.is(renameat2(d+"/bobs", d+"/f", unix.RENAME_EXCHANGE), unix.EPERM, "exchange with another's file")
		x.ok(unix.Unlink(d + "/bobs"))
	})
	x.as(alice, staff, func() { x.ok(unix.Unlink(d + "/f")) })               // the file's owner
	x.as(carol, guests, func() { x.ok(unix.Rename(d+"/g", x.p("g"))) })      // the directory's
	x.as(carol, guests, func() { x.is(unix.Rmdir(d+"/sub"), nil, "rmdir") }) // the directory's
	x.ok(unix.Unlink(d + "/h"))                                              // root
}

func access(x *env) {
	f := x.file("f", "", 0o754)
	x.ok(unix.Chown(f, alice, staff))
	may := func(mode uint32, want error) { x.Helper(); x.is(unix.Access(f, mode), want, "access ", mode) }
	x.as(alice, staff, func() { may(unix.R_OK|unix.W_OK|unix.X_OK, nil) })
	x.as(bob, staff, func() {
		may(unix.R_OK|unix.X_OK, nil)
		may(unix.W_OK, unix.EACCES)
	})
	x.as(bob, guests, func() {
		may(unix.F_OK, nil)
		may(unix.R_OK, nil)
		may(unix.X_OK, unix.EACCES)
		may(unix.R_OK|unix.W_OK, unix.EACCES)
	})
	x.is(unix.Access(x.p("no"), unix.F_OK), unix.ENOENT)
	x.is(unix.Access(f, 0o100), unix.EINVAL)
	x.ok(unix.Chmod(f, 0o644))
	may(unix.X_OK, unix.EACCES) // not even root, where nobody may
	may(unix.R_OK|unix.W_OK, nil)
}
