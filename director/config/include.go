package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// include is an element of the list of that name.
type include struct {
	at      *yaml.Node
	path    string // where it stands
	pattern string // as written: a file, a folder, or a file with wildcards
}

// Load reads and parses a file with what it includes. A folder stands for its
// files, those whose names end in .yaml or .yml, one of which may have the
// director's settings. If they name the data plane, what it cannot do is an error.
func Load(path string) (Config, error) { return (&loader{}).load(path) }

// LoadFor is Load for the data plane of the name, which stands before that of the
// settings; with none, for that of the settings, be it the default.
// director.ErrUnsupported if there is none of the name.
func LoadFor(path, plane string) (Config, error) {
	l, err := loaderFor(plane)
	if err != nil {
		return Config{}, err
	}
	return l.load(path)
}

func (l *loader) load(path string) (Config, error) {
	info, err := stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	names := []string{path}
	if info.IsDir() {
		if names, err = matching(path, isYAML); err != nil {
			return Config{}, fmt.Errorf("read configuration: %w", err)
		}
		if len(names) == 0 {
			return Config{}, fmt.Errorf("read configuration: folder %s has no *.yaml and no *.yml", path)
		}
	}
	files := newOpened()
	var tops []*decoder
	for _, name := range names {
		// Whoever names a single file may mean a pipe.
		data, err := files.read(name, "", len(names) > 1)
		if err != nil {
			return Config{}, fmt.Errorf("read configuration: %w", err)
		}
		tops = append(tops, l.decode(name, "", top, data))
	}
	for _, d := range tops {
		for _, include := range d.includes {
			l.follow(d, include, files)
		}
	}
	return l.finish()
}

// include reads the list of that name.
func (d *decoder) include(n *yaml.Node, path string) {
	switch d.role {
	case alone:
		d.refuse(n, path, "%s is not a file, so there is nothing beside it to include", d.file)
		return
	case included:
		d.refuse(n, path, "an included file cannot include others: list them in %s", d.parent)
		return
	}
	d.sequence(n, path, func(n *yaml.Node, path string, _ int) {
		pattern, ok := d.text(n, path)
		if !ok {
			return
		}
		switch folder, base := filepath.Split(pattern); {
		case pattern == "":
			d.refuse(n, path, "the value is empty")
		case strings.IndexByte(pattern, 0) >= 0:
			d.refuse(n, path, "%q has a NUL byte", pattern)
		case hasWildcard(folder):
			d.refuse(n, path, "%q: wildcards may be in the file's name only", pattern)
		case wildcardError(base) != nil:
			d.refuse(n, path, "%q: %v", pattern, wildcardError(base))
		default:
			d.includes = append(d.includes, include{n, path, pattern})
		}
	})
}

// follow decodes the files that an element of d's list stands for.
func (l *loader) follow(d *decoder, include include, files *opened) {
	names, err := include.files(filepath.Dir(d.file))
	if err != nil {
		d.refuse(include.at, include.path, "%v", err)
		return
	}
	for _, name := range names {
		if len(l.files) == MaxFiles {
			d.refuse(include.at, include.path, "the configuration has more than %d files", MaxFiles)
			return
		}
		data, err := files.read(name, fmt.Sprintf("%s:%d", d.file, include.at.Line), true)
		if err != nil {
			d.refuse(include.at, include.path, "%v", err)
			continue
		}
		l.decode(name, d.file, included, data)
	}
}

// files returns the files an include stands for, sorted by name; dir is where
// the including file is.
func (i include) files(dir string) ([]string, error) {
	path := i.pattern
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if base := filepath.Base(path); hasWildcard(base) {
		return matching(filepath.Dir(path), func(name string) bool {
			matched, _ := filepath.Match(base, name) // the pattern was checked
			return matched && (name[0] != '.' || base[0] == '.')
		})
	}
	info, err := stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	return matching(path, isYAML)
}

// matching returns the files of a folder whose names match, sorted by name.
func matching(dir string, match func(name string) bool) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		entries, err := f.ReadDir(1024)
		for _, entry := range entries {
			if match(entry.Name()) && !entry.IsDir() {
				names = append(names, filepath.Join(dir, entry.Name()))
			}
		}
		switch {
		case len(names) > MaxFiles:
			return nil, fmt.Errorf("folder %s has more than %d such files", dir, MaxFiles)
		case err == io.EOF:
			slices.Sort(names)
			return names, nil
		case err != nil:
			return nil, err
		}
	}
}

// isYAML leaves out hidden files: editors keep their copies in such.
func isYAML(name string) bool {
	return name[0] != '.' && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml"))
}

func hasWildcard(s string) bool { return strings.ContainsAny(s, `*?[\`) }

func wildcardError(base string) error {
	_, err := filepath.Match(base, "")
	return err
}

// stat says "open" of what cannot be: that is what was asked for, and stat only
// a question on the way.
func stat(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		pathErr.Op = "open"
	}
	return info, err
}

// opened are the files read so far: none is read twice, by whatever name.
type opened struct {
	seen []openedFile
}

type openedFile struct {
	info fs.FileInfo
	by   string // file:line of the include; empty for a file that was named
}

func newOpened() *opened { return &opened{} }

// read reads a file, a byte more than may be at most. Others than regular files
// might block for ever, so that they are read only where somebody named them.
func (o *opened) read(name, by string, regular bool) ([]byte, error) {
	info, err := stat(name)
	if err != nil {
		return nil, err
	}
	if regular && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	for _, before := range o.seen {
		switch {
		case !os.SameFile(info, before.info):
		case before.by == "":
			return nil, fmt.Errorf("%s is read already: a file cannot include itself", name)
		default:
			return nil, fmt.Errorf("%s is included by %s already", name, before.by)
		}
	}
	o.seen = append(o.seen, openedFile{info, by})
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	return data, nil
}
