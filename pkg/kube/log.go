// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// RouteLogs sends what the Kubernetes client libraries log through klog to
// logger. It is process-wide: a command calls it once, before New. Their
// information becomes debug and their errors become warnings, because a
// Watcher reports changes of its state itself, once each.
func RouteLogs(logger *slog.Logger) {
	klog.SetSlogLogger(slog.New(lowered{logger.Handler()}))
}

// lowered moves records one level down.
type lowered struct{ slog.Handler }

func (h lowered) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lower(l))
}

func (h lowered) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil // logr does not ask before an error
	}
	return h.Handler.Handle(ctx, r)
}

func (h lowered) WithAttrs(as []slog.Attr) slog.Handler { return lowered{h.Handler.WithAttrs(as)} }

func (h lowered) WithGroup(name string) slog.Handler { return lowered{h.Handler.WithGroup(name)} }

func lower(l slog.Level) slog.Level { return l - (slog.LevelError - slog.LevelWarn) }
