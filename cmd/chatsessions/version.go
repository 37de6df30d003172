package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit are set by the linker in a release (see the Makefile).
var version, commit string

type versionCommand struct {
	Output string `enum:"text,json" default:"text" help:"text or json."`
}

func (command versionCommand) Run(s streams) error {
	v, c := buildVersion()
	if command.Output == "json" {
		return json.NewEncoder(s.out).Encode(map[string]string{"version": v, "commit": c, "go": runtime.Version()})
	}
	_, err := fmt.Fprintf(s.out, "chatsessions %s, commit %s, %s\n", v, c, runtime.Version())
	return err
}

// buildVersion returns the version and commit of this binary, as far as the build noted them.
func buildVersion() (v, c string) {
	v, c = version, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		v = cmp.Or(v, info.Main.Version)
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				c = cmp.Or(c, setting.Value)
			}
		}
	}
	v, c = cmp.Or(v, "unknown"), cmp.Or(c, "unknown")
	if faulty {
		v += ", with faults: not to be deployed"
	}
	return v, c
}
