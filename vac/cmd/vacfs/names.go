package main

import (
	"os"
	"path/filepath"
	"strings"

	"strata/internal/command"
	"strata/vac/vacfs"
)

// addresses returns where to listen.
func (c *server) addresses(archives []vacfs.Archive) ([]string, error) {
	addrs := c.addrs
	service := c.service
	switch {
	case service != "":
	case c.post:
		service = "vacfs"
	case len(addrs) == 0 && !c.stdio && c.mountpoint == "":
		service = "vacfs"
		if len(archives) > 0 {
			service += "." + archives[0].Name
		}
	}
	if strings.Contains(service, "/") {
		return nil, command.Usagef("-S %s: a name, not a path; see -a", service)
	}
	if service != "" {
		addrs = append(addrs, "unix!"+filepath.Join(os.Getenv("NAMESPACE"), service))
	}
	return addrs, nil
}

// archive returns what an argument names: [name=]source.
func archive(arg string) vacfs.Archive {
	if name, source, ok := strings.Cut(arg, "="); ok && !strings.Contains(name, "/") {
		return vacfs.Archive{Name: name, Source: source}
	}
	return vacfs.Archive{Name: strings.TrimSuffix(filepath.Base(arg), ".vac"), Source: arg}
}
