package suite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/tests/harness"
)

// manual has, for each folder of programs, the flags of plan9port's and Plan
// 9's, from their usage lines and manual pages, with an argument where they take
// one. Fscons is con(1) there.
var manual = map[string]map[string]string{
	"venti": ventiManual,
	"fossil": {
		"conf":   "-w",
		"flchk":  "-f -h host",
		"flfmt":  "-y -b 8k -h host -l label -v score",
		"fossil": "-D -t -c command -f file -m 10",
		"fscons": "-a address -c command",
		"last":   "",
	},
}

var ventiManual = map[string]string{
	"buildindex":     "-b -d -i isect0 -i isect1 -M 64m",
	"checkarenas":    "-a -f -v",
	"checkindex":     "-f -B 16m",
	"clumpstats":     "-B 16m",
	"cmparenas":      "-b 8k -s 1 -v",
	"conf":           "-w",
	"copy":           "-f -i -m -r -V -v -t root",
	"dump":           "-h host",
	"findscore":      "-v",
	"fixarenas":      "-f -v -a 512m -b 8k",
	"fmtarenas":      "-4 -Z -a 512m -b 8k",
	"fmtbloom":       "-n 1000 -s 1m",
	"fmtindex":       "-a",
	"fmtisect":       "-1 -Z -b 8k",
	"mirrorarenas":   "-s -v -F",
	"mkroot":         "-h host",
	"printarena":     "-o 0",
	"printarenapart": "",
	"printarenas":    "-B 16m",
	"printindex":     "-B 16m",
	"printmap":       "-B 16m",
	"randtest":       "-h host -s 1 -b 8k -p 50 -n 1m -M 10 -P -r -w -m 4 -S",
	"rdarena":        "-q -v",
	"read":           "-h host -t 0",
	"readfile":       "-v -h host",
	"readifile":      "",
	"readlist":       "-h host",
	"reseal":         "-f -b 8k -s 1",
	"ro":             "-v -a address -h host",
	"root":           "-h host",
	"sync":           "-h host -x",
	"syncindex":      "-v -B 16m -I 16m",
	"venti":          "-L -d -r -s -a address -B 16m -c config -C 16m -h address -I 16m -W webroot",
	"verifyarena":    "-b 8k -s 1 -v",
	"wrarena":        "-o 0 -h host -f -M 12 -v",
	"write":          "-z -h host -t 0",
	"writefile":      "-v -h host",
}

// TestManual gives every program of venti and fossil all flags that the
// original takes, and has it explain itself.
func TestManual(t *testing.T) {
	ours := harness.Ours(t)
	for folder, flags := range manual {
		t.Run(folder, func(t *testing.T) { testManual(t, ours, folder, flags) })
	}
}

func testManual(t *testing.T, ours harness.Suite, folder string, manual map[string]string) {
	programs, err := os.ReadDir(filepath.Join(ours.Bin, folder))
	if err != nil || len(programs) == 0 {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, p := range programs {
		have[p.Name()] = true
		if _, ok := manual[p.Name()]; !ok {
			t.Errorf("%s is not in the list of this test", p.Name())
		}
	}
	for name, flags := range manual {
		program := folder + "/" + name
		if !have[name] {
			t.Errorf("there is no %s", program)
			continue
		}
		out, stderr, err := ours.Try(t, nil, program, append(strings.Fields(flags), "--help")...)
		if err != nil {
			t.Errorf("%s %s: %v\n%s", program, flags, err, stderr)
			continue
		}
		if !strings.HasPrefix(out, "usage: "+program+" ") && !strings.HasPrefix(out, "usage: "+folder+" ") || strings.Count(out, "\n") < 3 {
			t.Errorf("%s does not explain itself:\n%s", program, out)
		}
		if strings.Contains(out, "does nothing") {
			t.Errorf("%s explains what does nothing:\n%s", program, out)
		}
	}
}
