package meta

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/storage/object"
	"github.com/skshohagmiah/bucketdb/storage/vfs"
)

// childDir tells the test binary to be the child of TestUncleanExit.
const childDir = "BUCKETDB_META_CHILD"

const (
	recoveryTxns       = 8_000
	recoveryPartitions = 4
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		os.Exit(3) // no Close
	}
	os.Exit(m.Run())
}

// fill commits n transactions round robin over the partitions. Transaction i
// (from 1) is index i of its partition and the i-th commit of the database.
func fill(db *DB, n int) error {
	value := strings.Repeat("x", 700)
	for i := 1; i <= n; i++ {
		tx := db.Partition(partitionOf(i)).Begin()
		if err := tx.Set(fmt.Appendf(nil, "k%08d", i), []byte(value)); err != nil {
			return err
		}
		if err := tx.Set([]byte("last"), strconv.AppendInt(nil, int64(i), 10)); err != nil {
			return err
		}
		if err := tx.Commit(uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

func child(dir string) {
	db, err := Open(small(dir))
	if err == nil {
		err = fill(db, recoveryTxns)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	// The tables may grow between the two lines: the second is the later one.
	fmt.Println(durableSum(db))
	fmt.Println(db.tableVersion())
}

func durableSum(db *DB) (sum uint64) {
	for p := range recoveryPartitions {
		sum = max(sum, db.Partition(partitionOf(p)).Durable())
	}
	return sum
}

// TestUncleanExit is RAFT.md's experiment: a process dies without Close, and
// the database opens with exactly the prefix that its tables hold.
func TestUncleanExit(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	var durable, version uint64
	if _, err := fmt.Sscan(string(out), &durable, &version); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	opts := small(dir)
	db := open(t, opts)
	prefix := checkPrefix(t, db)
	t.Logf("%d of %d transactions are in the tables; Durable said %d, Tables %d", prefix, recoveryTxns, durable, version)
	if db.Clean() {
		t.Error("an unclean stop passes for a clean one")
	}
	// Background flushes may have gone on until the exit.
	if uint64(prefix) < version || prefix == recoveryTxns || version == 0 {
		t.Errorf("opened with %d transactions, the tables had %d", prefix, version)
	}
	if durable > uint64(prefix) {
		t.Errorf("Durable promised %d, %d survived", durable, prefix)
	}
}

// TestLostMemtableLogs removes every unflushed memtable log but the newest from
// a copy of a live directory: what a power cut may leave.
func TestLostMemtableLogs(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	must(t, fill(db, 5_000))
	waitFlushed(t, db)
	version, durable := db.tableVersion(), durableSum(db)
	whole := t.TempDir()
	must(t, os.CopyFS(whole, os.DirFS(dir)))

	logs, err := filepath.Glob(filepath.Join(whole, dataName, "*"+memSuffix))
	must(t, err)
	if len(logs) == 0 {
		t.Fatal("no memtable log in the copy")
	}
	slices.Sort(logs)
	for _, name := range logs[:len(logs)-1] {
		must(t, os.Remove(name))
	}
	got := open(t, small(whole))
	if prefix := checkPrefix(t, got); uint64(prefix) != version || durable > version || durable == 0 {
		t.Errorf("opened with %d transactions; the tables had %d, Durable said %d", prefix, version, durable)
	}
	if got.tableVersion() != version {
		t.Errorf("the tables grew from %d to %d", version, got.tableVersion())
	}
	// The copy goes on from there, and keeps what it gets.
	p := got.Partition(1)
	put(t, p, p.Applied()+1, "after", "crash")
	must(t, got.Close())
	again := open(t, small(whole))
	v := again.Partition(1).View()
	defer v.Close()
	if value, found, err := v.Get([]byte("after")); err != nil || !found || string(value) != "crash" {
		t.Errorf("%q, %v, %v", value, found, err)
	}
}

// waitFlushed waits until no memtable waits for its flush: the tables stand still.
func waitFlushed(t *testing.T, db *DB) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		logs, err := filepath.Glob(filepath.Join(db.dir.data(), "*"+memSuffix))
		must(t, err)
		if len(logs) == 1 {
			return
		}
	}
	t.Fatal("memtables are still being flushed")
}

// checkPrefix fails unless the database holds exactly transactions 1..n, and returns n.
func checkPrefix(t *testing.T, db *DB) (n int) {
	t.Helper()
	have := map[int]bool{}
	for i := range recoveryPartitions {
		p := db.Partition(partitionOf(i))
		v := p.View()
		defer v.Close()
		last := 0
		must(t, v.Ascend([]byte("k"), []byte("l"), func(k, _ []byte) (bool, error) {
			i, err := strconv.Atoi(string(k[1:]))
			have[i], last = true, i
			return true, err
		}))
		if value, _, err := v.Get([]byte("last")); err != nil || string(value) != strconv.Itoa(last) && last != 0 {
			t.Errorf("partition %d: last is %s, its keys end at %d (%v)", p.ID(), value, last, err)
		}
		if p.Applied() != uint64(last) || p.Durable() != uint64(last) {
			t.Errorf("partition %d: applied %d, durable %d, keys end at %d", p.ID(), p.Applied(), p.Durable(), last)
		}
		n = max(n, last)
	}
	if len(have) != n {
		t.Errorf("%d transactions up to number %d: not a prefix", len(have), n)
	}
	return n
}

func TestFlippedBitIsFoundAtOpen(t *testing.T) {
	dir := t.TempDir()
	db := open(t, small(dir))
	must(t, fill(db, 5_000))
	waitFlushed(t, db)
	copied := t.TempDir()
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	tables, err := filepath.Glob(filepath.Join(copied, dataName, "*.sst"))
	must(t, err)
	if len(tables) == 0 {
		t.Fatal("no tables")
	}
	data, err := os.ReadFile(tables[0])
	must(t, err)
	for _, at := range []int{100, len(data) / 2, len(data) - 40} {
		bad := slices.Clone(data)
		bad[at] ^= 4
		must(t, os.WriteFile(tables[0], bad, 0o600))
		if got, err := Open(small(copied)); err == nil {
			t.Errorf("a flipped bit at %d of %d went unnoticed", at, len(data))
			must(t, got.Close())
		}
	}
}

func TestTrailStaysBoundedAndSafe(t *testing.T) {
	var tr trail
	for i := uint64(1); i <= 10_000; i++ {
		tr.note(2*i, i)
	}
	tr.note(5, 4) // an old one comes late
	if len(tr.marks) > trailLength {
		t.Errorf("%d marks", len(tr.marks))
	}
	for flushed := uint64(0); flushed < 20_010; flushed += 77 {
		if got := tr.advance(flushed); got > flushed/2 {
			t.Fatalf("durable %d with the tables at %d", got, flushed)
		}
	}
	if tr.advance(20_010) != 10_000 {
		t.Errorf("durable ends at %d", tr.durable)
	}
}

func partitionOf(i int) object.PartitionID { return object.PartitionID(1 + i%recoveryPartitions) }

// TestFaultsOfTheMarkerFiles fails each labelled call once, at Open and at Close:
// the directory opens again, with everything the tables had.
func TestFaultsOfTheMarkerFiles(t *testing.T) {
	for _, op := range []vfs.Op{OpMkdir, OpLock, OpFormat, vfs.WriteOp(OpFormat), OpCleanSet, vfs.WriteOp(OpCleanSet), OpCleanUnset, OpDropLogs} {
		for skip := range 4 {
			dir := t.TempDir()
			db := open(t, small(dir))
			put(t, db.Partition(1), 7, "k", "v")
			must(t, db.Close())
			if op == OpFormat || op == vfs.WriteOp(OpFormat) {
				must(t, os.Remove(filepath.Join(dir, FormatName)))
			}
			disk := vfs.NewFaulty(vfs.OS())
			disk.Set(op, vfs.Rule{Skip: skip, Times: 1, Err: syscall.EIO})
			opts := small(dir)
			opts.FS = disk
			broken, err := Open(opts)
			if err == nil {
				err = broken.Close()
			}
			if hit := disk.Count(op) > skip; hit != (err != nil) {
				t.Errorf("%s, call %d made: %v; error: %v", op, skip+1, hit, err)
			}
			db = open(t, small(dir))
			v := db.Partition(1).View()
			if got := list(t, v, "", "", false); got != "k=v" || db.Partition(1).Applied() != 7 {
				t.Errorf("%s, call %d failed: afterwards %q", op, skip+1, got)
			}
			must(t, v.Close())
			must(t, db.Close())
		}
	}
}
