package partition_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"strata/vdisk/partition"
)

// TestSfdisk reads the tables that the machine's own sfdisk writes, and
// compares them with what it says of them.
func TestSfdisk(t *testing.T) {
	bin, err := exec.LookPath("sfdisk")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/sfdisk"); err != nil {
			t.Skip("sfdisk is not installed")
		}
	}
	for _, tc := range []struct {
		name   string
		size   int64
		sector int
		script string
		want   string // names of the regions
	}{
		{"dos", 64 * mib, 512, "label: dos\nlabel-id: 0xfeed1234\n2048,20480,83,*\n,20480,82\n",
			"mbr gap0 p1 p2 gap2"},
		{"dos, sector 63", 64 * mib, 512, "label: dos\nstart=63, size=20480, type=83\n",
			"mbr gap0 p1 gap1"},
		{"dos, extended", 200*mib + 512, 512, "label: dos\n,10M,c\n,10M,7\n,,5\n,10M,83\n,10M,82\n,20M,8e\n,,83\n",
			"mbr gap0 p1 p2 gap2 p5 gap5 p6 gap6 p7 gap7 p8"},
		{"dos, four and extended first", 200 * mib, 512, "label: dos\n,50M,f\n,10M,83\n,10M,83\n,,83\nsize=10M,type=83\nsize=10M,type=83\n",
			"mbr gap0 p5 gap5 p6 gap6 p2 p3 p4"},
		{"gpt", 64 * mib, 512, "label: gpt\nsize=10M,type=U,name=\"EFI system\",attrs=\"RequiredPartition GUID:60\"\nsize=10M,type=S\ntype=L,name=rööt\n",
			"gpt gap0 p1 p2 p3 gap3 gptbackup"},
		{"gpt, out of order", 64 * mib, 512, "label: gpt\ntable-length: 200\n/dev/x3 : start=2048, size=2048\n/dev/x1 : start=40960, size=2048\n/dev/x150 : start=20480, size=2048\n",
			"gpt gap0 p3 gap3 p150 gap150 p1 gap1 gptbackup"},
		{"gpt, 4096", 64 * mib, 4096, "label: gpt\nsize=10M,type=U\ntype=L,name=root\n",
			"gpt gap0 p1 p2 gap2 gptbackup"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "disk")
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(tc.size); err != nil {
				t.Fatal(err)
			}
			sfdisk := func(stdin string, args ...string) []byte {
				args = append(args, name)
				if tc.sector != 512 {
					args = append([]string{"--sector-size", strconv.Itoa(tc.sector)}, args...)
				}
				cmd := exec.Command(bin, args...)
				cmd.Stdin = strings.NewReader(stdin)
				out, err := cmd.Output()
				if err != nil {
					if tc.sector != 512 {
						t.Skipf("sfdisk %v: %v", args, err)
					}
					t.Fatalf("sfdisk %v: %v\n%s", args, err, out)
				}
				return out
			}
			sfdisk(tc.script, "-q")
			var says struct {
				PartitionTable struct {
					Label      string
					ID         string
					Partitions []struct {
						Node        string
						Start, Size int64
						Type        string
						UUID        string
						Name        string
						Bootable    bool
					}
				}
			}
			if err := json.Unmarshal(sfdisk("", "--json"), &says); err != nil {
				t.Fatal(err)
			}
			table, _ := cut(t, f, tc.size)
			if table.Whole != "" || len(table.Notes) > 0 {
				t.Fatalf("whole because %q, notes %q", table.Whole, table.Notes)
			}
			label := map[string]partition.Scheme{"gpt": partition.GPT, "dos": partition.MBR}[says.PartitionTable.Label]
			if table.Scheme != label ||
				table.ID != strings.TrimPrefix(strings.ToLower(says.PartitionTable.ID), "0x") {
				t.Errorf("got %s, %s, want %s, %s", table.Scheme, table.ID, says.PartitionTable.Label, says.PartitionTable.ID)
			}
			got := make(map[string]string)
			for _, p := range table.Partitions {
				id := ""
				if table.Scheme == partition.GPT {
					id = p.ID
				}
				got[fmt.Sprint(name, p.Number)] = fmt.Sprintf("%d+%d %s %s %q %v", p.Start, p.Length,
					strings.TrimPrefix(p.Type, "0"), id, p.Label, table.Scheme == partition.MBR && p.Attrs == 0x80)
			}
			for _, p := range says.PartitionTable.Partitions {
				if p.Type == "5" || p.Type == "f" {
					continue
				}
				want := fmt.Sprintf("%d+%d %s %s %q %v", p.Start*int64(tc.sector), p.Size*int64(tc.sector),
					strings.TrimPrefix(strings.ToLower(p.Type), "0"), strings.ToLower(p.UUID), p.Name, p.Bootable)
				if got[p.Node] != want {
					t.Errorf("%s is\n\t%s\nwant\n\t%s", p.Node, got[p.Node], want)
				}
				delete(got, p.Node)
			}
			if len(got) > 0 {
				t.Errorf("sfdisk says nothing of %v", got)
			}
			var names []string
			for _, r := range table.Cut() {
				names = append(names, r.Name)
			}
			if strings.Join(names, " ") != tc.want {
				t.Errorf("regions %v, want %s", names, tc.want)
			}
		})
	}
}
