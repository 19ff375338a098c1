package tests

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the module's folder, seen from this package's.
const root = ".."

// code is what stands between backquotes in a document, one line at most.
var code = regexp.MustCompile("`([^`\n]+)`")

// fence is a block of commands or code.
var fence = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```")

// What the documents name must exist: files, packages, identifiers, make targets, kitd's commands and flags.
func TestDocumentsNameWhatExists(t *testing.T) {
	names := declared(t)
	kitd := buildKitd(t)
	for _, doc := range []string{"README.md", "ARCHITECTURE.md"} {
		text, err := os.ReadFile(filepath.Join(root, doc))
		require.NoError(t, err)
		blocks := fence.FindAllStringSubmatch(string(text), -1)
		prose := fence.ReplaceAllString(string(text), "")
		for _, m := range code.FindAllStringSubmatch(prose, -1) {
			checkName(t, doc, m[1], names)
			checkCommand(t, doc, m[1], kitd)
		}
		for _, b := range blocks {
			for line := range strings.Lines(b[1]) {
				checkCommand(t, doc, strings.TrimSpace(line), kitd)
			}
		}
	}
}

// declared lists what each package of ours declares, as "pkg.Name" and "pkg.Type.Member", and the bare names of everything.
func declared(t *testing.T) map[string]bool {
	names := make(map[string]bool)
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "out" || d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		declare(names, f)
		return nil
	}))
	return names
}

func declare(names map[string]bool, f *ast.File) {
	pkg := f.Name.Name
	add := func(parts ...string) {
		names[parts[len(parts)-1]] = true
		names[pkg+"."+strings.Join(parts, ".")] = true
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name.Name)
				continue
			}
			recv := d.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			if id, ok := recv.(*ast.Ident); ok {
				add(id.Name, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				declareSpec(add, s)
			}
		}
	}
}

func declareSpec(add func(...string), s ast.Spec) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		add(s.Name.Name)
		if st, ok := s.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				for _, n := range f.Names {
					add(s.Name.Name, n.Name)
				}
			}
		}
		if it, ok := s.Type.(*ast.InterfaceType); ok {
			for _, f := range it.Methods.List {
				for _, n := range f.Names {
					add(s.Name.Name, n.Name)
				}
			}
		}
	case *ast.ValueSpec:
		for _, n := range s.Names {
			add(n.Name)
		}
	}
}

var (
	goName   = regexp.MustCompile(`^([a-z]+)\.([A-Z]\w*(?:\.\w+)?)(?:\(.*\))?$`)
	filePath = regexp.MustCompile(`^\.?[\w.-]+(?:/[\w.@*-]+)+/?$|^[\w-]+\.(?:go|c|h|md|toml|service)$`)
)

// checkName looks up an identifier or a path.
func checkName(t *testing.T, doc, s string, names map[string]bool) {
	if m := goName.FindStringSubmatch(s); m != nil {
		if hasPackage(names, m[1]) {
			require.True(t, names[m[1]+"."+m[2]], "%s names `%s`, which is not declared", doc, s)
		}
		return
	}
	if !filePath.MatchString(s) || strings.HasPrefix(s, "github.com/") || strings.HasPrefix(s, "golang.org/") {
		return
	}
	_, inRoot := os.Stat(filepath.Join(root, path.Clean(s)))
	if first, _, ok := strings.Cut(s, "/"); ok {
		if _, err := os.Stat(filepath.Join(root, first)); err != nil {
			return // a path of the system, or of an address
		}
	}
	require.NoError(t, inRoot, "%s names `%s`, which does not exist", doc, s)
}

func hasPackage(names map[string]bool, pkg string) bool {
	for n := range names {
		if strings.HasPrefix(n, pkg+".") {
			return true
		}
	}
	return false
}

// buildKitd builds the command whose flags the documents name.
func buildKitd(t *testing.T) string {
	t.Helper()
	bin, err := builtKitd()
	require.NoError(t, err)
	return bin
}

// builtKitd builds the command once, in a folder that TestMain removes.
var builtKitd = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(binaries, "kitd")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/kitd")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return bin, err
})

// binaries is where what the tests build lies.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "kit-tests-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(binaries)
	os.Exit(status)
}

var (
	makeTarget = regexp.MustCompile(`\bmake ([a-z][a-z-]*)\b`)
	kitdCall   = regexp.MustCompile(`\bkitd ([a-z]+)\b([^|#]*)`)
	flag       = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]+|-[a-zA-Z])\b`)
)

// checkCommand looks up make targets, and kitd's commands and their flags.
func checkCommand(t *testing.T, doc, line string, kitd string) {
	for _, m := range makeTarget.FindAllStringSubmatch(line, -1) {
		mk, err := os.ReadFile(filepath.Join(root, "Makefile"))
		require.NoError(t, err)
		require.Regexp(t, `(?m)^`+m[1]+`:`, string(mk), "%s names `make %s`, which is no target", doc, m[1])
	}
	if strings.HasPrefix(strings.TrimSpace(line), "//") {
		return
	}
	for _, m := range kitdCall.FindAllStringSubmatch(line, -1) {
		help, err := exec.Command(kitd, m[1], "--help").CombinedOutput()
		require.NoError(t, err, "%s names `kitd %s`: %s", doc, m[1], help)
		for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
			require.Regexp(t, `(?m)(^|[\s,])`+regexp.QuoteMeta(f[1])+`\b`, string(help), "%s names `kitd %s %s`, which has no such flag", doc, m[1], f[1])
		}
	}
}
