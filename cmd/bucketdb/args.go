package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultCommand is what a command line without a command means.
const defaultCommand = "server"

// normalise makes a command line what the flag library expects: "-name" becomes
// "--name" where name is a long flag of the command (rm -rf stays what it is:
// rm has no flag "rf"), and the default command is named where none is.
func normalise(root *cobra.Command, args []string) []string {
	command, at := commandOf(root, args)
	out := slices.Clone(args)
	if command == nil {
		command = root
	} else if at < 0 {
		out = append([]string{command.Name()}, out...)
	}
	for i, arg := range out {
		if arg == "--" {
			break
		}
		if name, single := singleDash(arg); single && lookup(command, name) != nil {
			out[i] = "-" + arg
		}
	}
	return out
}

// commandOf finds the command that args mean and where it stands; -1: it is the
// default. nil: args ask for help or a version, or for a command that is not there.
func commandOf(root *cobra.Command, args []string) (*cobra.Command, int) {
	server := child(root, defaultCommand)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "-h" || arg == "--help" || arg == "-help" || arg == "-v" || arg == "--version" || arg == "-version":
			return nil, -1
		case arg == "--":
			return server, -1
		case !strings.HasPrefix(arg, "-") || arg == "-":
			return child(root, arg), i
		}
		if takesNext(server, arg) {
			i++
		}
	}
	return server, -1
}

func child(root *cobra.Command, name string) *cobra.Command {
	for _, c := range root.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// singleDash takes "-name" or "-name=value" apart. Two letters are needed: one
// is a short flag.
func singleDash(arg string) (name string, ok bool) {
	if len(arg) < 3 || arg[0] != '-' || arg[1] == '-' {
		return "", false
	}
	name, _, _ = strings.Cut(arg[1:], "=")
	return name, len(name) > 1
}

// lookup finds a long flag of a command, of those above it, or of its
// subcommands. Help and version belong to every command.
func lookup(c *cobra.Command, name string) *pflag.Flag {
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	if f := c.Flags().Lookup(name); f != nil {
		return f
	}
	if f := c.InheritedFlags().Lookup(name); f != nil {
		return f
	}
	for _, sub := range c.Commands() {
		if f := sub.Flags().Lookup(name); f != nil && c.HasParent() {
			return f
		}
	}
	return nil
}

// takesNext reports whether arg is a flag of c whose value is the next argument.
func takesNext(c *cobra.Command, arg string) bool {
	if strings.Contains(arg, "=") {
		return false
	}
	f := lookup(c, strings.TrimLeft(arg, "-"))
	return f != nil && f.NoOptDefVal == ""
}
