# SPDX-License-Identifier: Apache-2.0

VERSION ?= $(shell (git describe --tags --always --dirty 2>/dev/null || echo unknown) | sed s/^v//)
VERSION_PKG = github.com/prometheus/common/version
LDFLAGS = -s -w -X $(VERSION_PKG).Version=$(VERSION) -X $(VERSION_PKG).Revision=$(shell git rev-parse HEAD 2>/dev/null)
export CGO_ENABLED ?= 0

.DEFAULT_GOAL = help
.PHONY: help demo build image test test-long bench fuzz lint generate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## real numbers on this machine: without a cluster, with a real API server and kube-proxy, in a real Prometheus
	hack/demo.sh

build: ## bin/svcscope and bin/lab
	@hack/preflight.sh go
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/svcscope ./cmd/svcscope
	cd hack/lab && go build -trimpath -o ../../bin/lab .
	cd hack/cabundle && go mod download # so that the image builds without the network

image: ## bin/image/svcscope-{amd64,arm64}.tar, by buildah
	hack/image.sh

test: ## everything that gates a change (what CI runs)
	hack/test.sh

test-long: ## the full numbers; results go to docs/verification.md
	hack/test.sh long

bench: ## benchmarks as ratios; results go to docs/performance.md
	hack/bench.sh

fuzz: ## every fuzz target for FUZZTIME (default 20s) each
	hack/fuzz.sh

lint: ## golangci-lint as .golangci.yml says
	hack/lint.sh

generate: ## files made from code: docs, dashboards, rules, the chart's README, deploy
	go run ./hack/metricsdoc > docs/metrics.md
	go run ./hack/clidoc > docs/cli.md
	go run ./hack/monitoring
	cd hack/chart && go run . readme && go run . deploy

clean: ## built files (the cache of control-plane binaries stays: see hack/lab/README.md)
	rm -rf bin
