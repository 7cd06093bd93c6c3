// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

// logOptions are the flags of a command that logs.
type logOptions struct {
	level  *choice
	format *choice
}

func (o *logOptions) bind(cmd *cobra.Command) {
	o.level = choiceFlag(cmd, "log.level", "least severity to log", "info", "debug", "warn", "error")
	o.format = choiceFlag(cmd, "log.format", "format of the log on standard error", "logfmt", "json")
}

// logger writes to w, one record a line.
func (o *logOptions) logger(w io.Writer) *slog.Logger {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	options := &slog.HandlerOptions{Level: levels[o.level.value]}
	if o.format.value == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
