package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skshohagmiah/bucketdb/integration/harness"
	"github.com/skshohagmiah/bucketdb/integration/need"
)

// addresses are so many free ones on loopback.
func addresses(t *testing.T, n int) (list []string) {
	t.Helper()
	for range n {
		a, err := harness.FreeAddress()
		check(t, err)
		list = append(list, a)
	}
	return list
}

// TestRunCluster: scripts/run_cluster.sh starts three nodes that are one cluster, stops
// them on Ctrl-C, and finds the data again.
func TestRunCluster(t *testing.T) {
	need.Command(t, "curl", "bash")
	root, err := harness.Root()
	check(t, err)
	apis, peers, dir := addresses(t, 3), addresses(t, 3), t.TempDir()
	for round := range 2 {
		cmd := exec.Command("bash", filepath.Join(root, "scripts", "run_cluster.sh"))
		cmd.Env = append(os.Environ(), "BUCKETDB_RUN_BINARY="+bin(t), "BUCKETDB_RUN_DATA="+dir, "BUCKETDB_RUN_APIS="+strings.Join(apis, " "), "BUCKETDB_RUN_PEERS="+strings.Join(peers, " "))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		ended := make(chan error, 1)
		stop := func() error {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			select {
			case err := <-ended:
				return err
			case <-time.After(2 * time.Minute):
				return fmt.Errorf("the script does not end: %w", cmd.Process.Kill())
			}
		}
		running := make(chan struct{})
		go func() {
			lines := bufio.NewScanner(out)
			for said := false; lines.Scan(); {
				if strings.Contains(lines.Text(), "Ctrl-C") && !said {
					said = true
					close(running)
				}
			}
			ended <- cmd.Wait()
		}()
		select {
		case <-running:
		case err := <-ended:
			t.Fatalf("the script ended: %v", err)
		case <-time.After(3 * time.Minute):
			t.Fatalf("the cluster does not start; %v", stop())
		}
		func() {
			defer func() { check(t, stop()) }()
			if round == 0 { // the README's own words
				raw, err := os.ReadFile(filepath.Join(root, "README.md"))
				check(t, err)
				blocks := fenced(string(raw), "sh cluster")
				if len(blocks) == 0 {
					t.Fatal("README.md has no example of a cluster")
				}
				sh(t, dir, `cp "$1/README.md" . && mkdir bin && cp "$2" bin/bucketdb`, root, bin(t))
				for _, block := range blocks {
					for i, api := range apis {
						block = strings.ReplaceAll(block, fmt.Sprintf("127.0.0.1:%d", 9080+i), api)
					}
					sh(t, dir, strings.ReplaceAll(block, "curl -sS", "curl -sS --fail-with-body"))
				}
			}
			for _, api := range apis {
				sh(t, dir, `curl -sS --fail-with-body "http://$1/objects/demo/README.md" | cmp - README.md`, api)
			}
		}()
	}
}

// TestDocker: the image of the binary FROM scratch, and docker-compose.yml's three nodes,
// on a Docker daemon that this test starts and stops.
func TestDocker(t *testing.T) {
	if !need.Full() {
		t.Skip("run in make full")
	}
	need.Root(t)
	need.Command(t, "curl", "bash")
	for _, name := range []string{"dockerd", "docker", "docker-compose"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: apt-get install docker.io docker-compose", name)
		}
	}
	root, err := harness.Root()
	check(t, err)
	dir := t.TempDir()
	sh(t, dir, `
set -e
cp -r "$1/Dockerfile" "$1/.dockerignore" "$1/docker" "$1/docker-compose.yml" .
(cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$OLDPWD/bin/bucketdb" ./cmd/bucketdb)
export DOCKER_HOST="unix://$PWD/docker.sock" DOCKER_BUILDKIT=0 COMPOSE_PROJECT_NAME=bdbtest
dockerd --data-root "$PWD/daemon" --exec-root "$PWD/exec" -H "$DOCKER_HOST" --pidfile "$PWD/pid" >daemon.log 2>&1 &
daemon=$!
cleanup() { status=$?; set +e; docker-compose down -v >/dev/null 2>&1; docker rm -f -v one >/dev/null 2>&1; kill $daemon; wait $daemon; exit $status; }
trap cleanup EXIT
until docker version >/dev/null 2>&1; do kill -0 $daemon || { tail -n 5 daemon.log; exit 1; }; sleep 0.2; done
docker build -q -t bucketdb . >/dev/null 2>&1

# Alone, it listens on all addresses, and says what it misses before it does that for everybody.
if docker run --rm bucketdb -bootstrap=true >alone 2>&1; then echo "it serves everybody"; exit 1; fi
grep -q -- --allow-anonymous alone
docker run -d --name one bucketdb -bootstrap=true -allow-anonymous >/dev/null
healthy() { for i in $(seq 300); do [ "$(docker inspect -f '{{.State.Health.Status}}' "$1")" = healthy ] && return; sleep 0.5; done; docker logs "$1" | tail -n 20; return 1; }
healthy one
docker logs one >log 2>&1
grep -q bdb1- log

docker-compose up -d >/dev/null 2>&1 || { docker-compose logs | tail -n 20; exit 1; }
for n in 1 2 3; do healthy bdbtest_n${n}_1; done
curl -sS --fail-with-body -X POST http://127.0.0.1:9081/buckets -d '{"name":"demo"}'
echo hello | curl -sS --fail-with-body -T - http://127.0.0.1:9082/objects/demo/key
[ "$(curl -sS --fail-with-body http://127.0.0.1:9080/objects/demo/key)" = hello ]
docker-compose restart >/dev/null 2>&1
for n in 1 2 3; do healthy bdbtest_n${n}_1; done
[ "$(curl -sS --fail-with-body --retry 30 --retry-connrefused http://127.0.0.1:9080/objects/demo/key)" = hello ]
`, root)
}
