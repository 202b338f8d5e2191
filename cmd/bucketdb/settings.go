package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// lookupEnv is os.LookupEnv.
type lookupEnv func(name string) (string, bool)

const envPrefix = "BUCKETDB_"

// envName is the environment variable of a flag: BUCKETDB_LOG_LEVEL for log-level.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settle gives each flag that the command line left out its value from the
// environment, or else from the config file. So the order is: flag, environment,
// file, default.
func settle(cmd *cobra.Command, env lookupEnv) error {
	set := cmd.Flags()
	if err := fromEnv(set.Lookup("config"), set, env); err != nil {
		return err
	}
	path, _ := set.GetString("config") // a flag of the root: it is there
	file, err := readFile(cmd.Root(), path)
	if err != nil {
		return err
	}
	set.VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || f.Name == "help" || f.Name == "config" {
			return
		}
		if err = fromEnv(f, set, env); err != nil || f.Changed {
			return
		}
		err = fromFile(f, set, file, path)
	})
	return err
}

func fromEnv(f *pflag.Flag, set *pflag.FlagSet, env lookupEnv) error {
	value, ok := env(envName(f.Name))
	if !ok || value == "" || f.Changed {
		return nil
	}
	if err := set.Set(f.Name, value); err != nil {
		return fmt.Errorf("%s: %w", envName(f.Name), err)
	}
	return nil
}

func fromFile(f *pflag.Flag, set *pflag.FlagSet, file *viper.Viper, path string) error {
	if file == nil || !file.IsSet(f.Name) {
		return nil
	}
	var err error
	if list, ok := f.Value.(pflag.SliceValue); ok {
		err = list.Replace(file.GetStringSlice(f.Name))
		f.Changed = true
	} else {
		err = set.Set(f.Name, file.GetString(f.Name))
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", path, f.Name, err)
	}
	return nil
}

// readFile reads a config file whose keys are the long flags of all commands,
// so that one file serves them all. A key that is no flag is an error: a
// setting that does nothing misleads. "" is no file.
func readFile(root *cobra.Command, path string) (*viper.Viper, error) {
	if path == "" {
		return nil, nil
	}
	if !slices.Contains([]string{".yaml", ".yml", ".toml", ".json"}, filepath.Ext(path)) {
		return nil, fmt.Errorf("%s: a config file's name ends in .yaml, .toml or .json", path)
	}
	v := viper.New()
	v.SetConfigFile(path)
	if err := v.ReadInConfig(); err != nil {
		return nil, fmt.Errorf("config file: %w", err)
	}
	known := flagNames(root)
	for _, key := range v.AllKeys() {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("%s: unknown setting %q; the settings are: %s", path, key, strings.Join(known, ", "))
		}
	}
	return v, nil
}

// flagNames lists the long flags of all commands, in order.
func flagNames(root *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "config" && f.Name != "version" && !f.Hidden {
			names = append(names, f.Name)
		}
	}
	root.PersistentFlags().VisitAll(add)
	for _, c := range root.Commands() {
		c.Flags().VisitAll(add)
		for _, sub := range c.Commands() {
			sub.Flags().VisitAll(add)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
