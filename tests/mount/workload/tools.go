package workload

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// script is what tools has sh do in the tree and in a local directory, with a
// tree of files in $1; what it prints must be alike.
const script = `set -e
cp -a "$1" copy
find copy -type f | sort
find copy -type f | sort | xargs md5sum
find copy -type d | wc -l
cd copy
for i in 1 2 3 4 5; do
	dd if=d0/f0 of=pieces bs=1000 count=7 skip=$i seek=$((i * 7)) conv=notrunc 2>/dev/null
done
md5sum pieces
dd if=/dev/zero of=zeros bs=4096 count=1 seek=40 2>/dev/null
wc -c <zeros
cat d0/f* >>all
cat d0/f* >>all
md5sum all
mv all everything
cp everything d1/
cmp everything d1/everything
tar cf - d0 d1 | tar tf - | sort
mkdir out
tar cf - d0 | tar xf - -C out
diff -r d0 out/d0
touch -d '2001-02-03 04:05:06' everything
find . -newer everything -type f | sort
find . -maxdepth 1 ! -newer everything
rm -r d1
ls -A
`

// links is what it does where there are symbolic links.
const links = `
ln -s everything l
cat l | md5sum
readlink l
find . -type l
cp -a l l2
readlink l2
`

// tools runs programs in the tree.
func tools(r *run) error {
	// The files to work with lie on the local file system.
	src, err := os.MkdirTemp(r.Local, "src")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	rnd := rand.New(rand.NewPCG(r.Seed, 30))
	for d := range 3 {
		dir := filepath.Join(src, fmt.Sprintf("d%d", d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for f := range 3 * r.Scale {
			b := make([]byte, rnd.IntN(60000)+f*100)
			for i := range b {
				b[i] = byte(rnd.Uint32() >> (rnd.Uint32() % 8))
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", f)), b, 0o644); err != nil {
				return err
			}
		}
	}
	text := script
	if r.Can.Symlinks {
		text += links
	}
	if err := r.compare(text, src); err != nil {
		return err
	}
	return r.same(r.dir, r.local)
}
