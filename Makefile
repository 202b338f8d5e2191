# What a person types. Everything sets itself up; `make test` is all that CI runs beside `make check`.

GO      ?= go
TIMEOUT ?= 35m

.PHONY: run build test full check bench docker setup clean

## run: build, start a node on ./data, mount it at ./mnt, until Ctrl-C
run: build
	@scripts/run.sh

## build: one static binary, bin/bucketdb
build:
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/bucketdb ./cmd/bucketdb

## setup: the programs that the tests drive (fuse3, rsync, git, sqlite3); installed when they are missing
setup:
	@scripts/setup.sh

## test: every test, with the race detector
test: setup
	@$(GO) test -race -timeout $(TIMEOUT) ./...

## full: the same with the full sizes and rounds; takes an hour or so
full: setup
	@BUCKETDB_FULL=1 BUCKETDB_REQUIRE_ALL=1 $(GO) test -race -timeout 6h ./...

## check: formatting, vet, staticcheck, layering
check:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go' 2>/dev/null || find . -name '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "run gofmt -w on:" $$unformatted; exit 1; fi
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...
	@$(GO) test -count=1 ./integration/layers

## bench: a table of ratios against the bare disk, gin, net/http and go-fuse's loopback
bench: build setup
	@$(GO) run ./integration/bench

## docker: an image FROM scratch around the static binary
docker: build
	@docker build -t bucketdb .

clean:
	@rm -rf bin
