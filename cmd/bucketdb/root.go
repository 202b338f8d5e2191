package main

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// app is what all commands share.
type app struct {
	io        streams
	env       lookupEnv
	endpoints []string
	logLevel  string
	logFormat string
}

// newRoot is the whole command line.
func newRoot(io streams, env lookupEnv) *cobra.Command {
	a := &app{io: io, env: env}
	root := &cobra.Command{
		Use:   "bucketdb",
		Short: "An object store that is also a filesystem",
		Long: `BucketDB keeps buckets of objects and shows them as a REST API and as a mounted
filesystem. Without a command it starts a node: "bucketdb" is "bucketdb server".

Every long flag can be given with one dash too, as an environment variable
(--log-level is BUCKETDB_LOG_LEVEL), and as a key in a file named by --config
(YAML, TOML or JSON). The command line wins over the environment, the
environment over the file.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       buildVersion(),

		SuggestionsMinimumDistance: 2,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := ""
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usagef("bucketdb", "there is no command %q%s", args[0], hint)
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if err := settle(c, env); err != nil {
				return &usageError{command: c.CommandPath(), err: err}
			}
			return nil
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetVersionTemplate("bucketdb {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{command: c.CommandPath(), err: err}
	})
	f := root.PersistentFlags()
	f.String("config", "", "read settings from this `FILE` (.yaml, .toml, .json)")
	f.StringVar(&a.logLevel, "log-level", "info", "log from this `LEVEL` on: debug, info, warn, error")
	f.StringVar(&a.logFormat, "log-format", "text", "log as text or json")
	root.AddCommand(a.serverCommand(), a.mountCommand(), a.umountCommand(), a.healthCommand(), a.clusterCommand(), a.versionCommand())
	root.AddCommand(a.objectCommands()...)
	for _, c := range root.Commands() {
		if c.Args != nil {
			c.Args = asUsage(c.Args)
		}
	}
	return root
}

// asUsage makes the errors of an argument check usage errors.
func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{command: c.CommandPath(), err: err}
		}
		return nil
	}
}

// logger writes to stderr as the flags say.
func (a *app) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, usagef("bucketdb", "--log-level is %q; it must be debug, info, warn or error", a.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch a.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, usagef("bucketdb", "--log-format is %q; it must be text or json", a.logFormat)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.io.out, "bucketdb %s (%s, %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildVersion is what the go command stamped into the binary: the module's
// version, or "devel" and the commit.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
