// Strata runs the whole suite in one process, from one directory.
//
//	strata up DIR    serve DIR, made on first use
//	strata demo      two real disks in, and one of them back over 9P
package main

import "strata/internal/command"

func main() {
	suite := command.Suite{
		Name: "strata",
		Doc:  "Keeps disks and their history in one content-addressed store, and serves them.",
		Commands: []command.SubCommand{
			{Name: "up", Short: "serve a directory, made on first use", New: upCommand},
			{Name: "demo", Short: "make two disks, store them, read one back over 9P", New: demoCommand},
		},
	}
	suite.Main()
}
