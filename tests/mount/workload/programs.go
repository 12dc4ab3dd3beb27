package workload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// compare has sh do the same in the tree and in a local directory, with arg in
// $1, and compares what it prints.
func (r *run) compare(script, arg string) error {
	var out [2]string
	for i, dir := range []string{r.dir, r.local} {
		cmd := exec.Command("sh", "-c", script, "sh", arg)
		cmd.Dir = dir
		b, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("in %s: %w: %s", dir, err, b)
		}
		out[i] = string(b)
	}
	if out[0] != out[1] {
		return fmt.Errorf("programs print %s\nwant %s", out[0], out[1])
	}
	return nil
}

// untar unpacks a real source tree, and packs it again.
func untar(r *run) error {
	err := r.compare(`set -e
mkdir src
tar xf "$1" -C src
find src -type d | wc -l
find src -type f | sort | xargs md5sum
(cd src && tar cf ../again.tar .)
tar tvf again.tar | grep -v '^d' | sort
mkdir again
tar xf again.tar -C again
diff -r src again
rm -r again again.tar
`, r.Tar)
	if err != nil {
		return err
	}
	return r.same(r.dir, r.local)
}

// gitEnv makes that what git does follows from nothing but its commands.
const gitEnv = `set -e
export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_TEMPLATE_DIR= GIT_PAGER=cat
export GIT_AUTHOR_NAME=Glenda GIT_AUTHOR_EMAIL=glenda@example.com GIT_COMMITTER_NAME=Glenda GIT_COMMITTER_EMAIL=glenda@example.com
export GIT_AUTHOR_DATE='2001-02-03 04:05:06 +0000' GIT_COMMITTER_DATE='2001-02-03 04:05:06 +0000'
export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' GIT_CONFIG_KEY_1=gc.auto GIT_CONFIG_VALUE_1=0
`

// git clones a local repository and works in the clone.
func git(r *run) error {
	origin, err := os.MkdirTemp(r.Local, "origin")
	if err != nil {
		return err
	}
	defer os.RemoveAll(origin)
	cmd := exec.Command("sh", "-c", gitEnv+`
git init -q -b main
tar xf "$1"
git add .
git commit -q -m everything
for i in 1 2 3 4 5; do
	find . -name '*.go' | sort | sed -n "${i}p" | xargs -I% sh -c 'echo "// more" >>%'
	git commit -q -a -m "more $1"
done
`, "sh", r.Tar)
	cmd.Dir = origin
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a repository: %w: %s", err, b)
	}
	err = r.compare(gitEnv+`
git clone -q --no-hardlinks "$1" clone
cd clone
git fsck --full --strict
git status --porcelain
git checkout -q -b side HEAD~3
find . -name '*.go' | sort | tail -n 3 | while read f; do echo '// side' >>"$f"; done
git commit -q -a -m side
git checkout -q main
git merge -q -m merged side
git status --porcelain
git rm -q -r --cached . && git reset -q --hard && git status --porcelain
git log --format='%H %s'
git ls-files -s | md5sum
git gc -q --prune=now
git fsck --full --strict
git count-objects -v | grep -v size
cd ..
git clone -q clone second
git -C second fsck --full --strict
git -C second rev-parse HEAD
git -C second archive main | tar xf - -C "$(mkdir out && echo out)"
for d in clone second; do (cd $d && git ls-files | xargs md5sum); done
rm -rf second
`, origin)
	if err != nil {
		return err
	}
	for _, dir := range []string{r.dir, r.local} {
		// Its index and its packs have times in them.
		if err := os.RemoveAll(filepath.Join(dir, "clone", ".git")); err != nil {
			return err
		}
	}
	return r.same(r.dir, r.local)
}

// sqlite has databases with each kind of journal. None is mapped: the one with
// a log is for one process alone.
func sqlite(r *run) error {
	return r.compare(fmt.Sprintf(`set -e
for mode in delete truncate persist wal; do
	lock=normal
	[ $mode != wal ] || lock=exclusive
	sqlite3 -batch -bail $mode.db <<EOF
pragma mmap_size=0;
pragma locking_mode=$lock;
pragma journal_mode=$mode;
pragma synchronous=full;
pragma cache_size=50;
create table t(id integer primary key, name text, data blob);
with recursive n(x) as (select 1 union all select x+1 from n where x < %d) insert into t select x, printf('%%08d', x*7919%%100003), zeroblob(x%%997) from n;
create index names on t(name);
begin; update t set data=hex(name) where id%%7=0; rollback;
begin; update t set data=hex(name) where id%%3=0; delete from t where id%%5=0; commit;
$(for i in 1 2 3 4 5 6 7 8 9 10; do echo "insert into t(name, data) values('one $i', zeroblob($i*1000));"; done)
savepoint a; delete from t; rollback to a; release a;
pragma integrity_check;
vacuum;
EOF
	sqlite3 -batch -bail $mode.db <<EOF
pragma mmap_size=0;
pragma locking_mode=$lock;
pragma integrity_check;
select count(*), sum(id), sum(length(data)) from t;
pragma foreign_key_check;
EOF
	sqlite3 -batch -bail $mode.db 'pragma mmap_size=0; pragma locking_mode=exclusive;' .dump | md5sum
done
`, 400*r.Scale), "")
}
