package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"github.com/shunt-lb/shunt/director/event"
)

// fileVersion is the form of the file; another is refused, and set aside.
const fileVersion = 1

// maxFile is how large a file is read: that of all members there may be, and more.
const maxFile = 64 << 20

// grace is how much longer than a restart a lease lasts at most, by that alone.
const grace = 30 * time.Second

// image is the file.
type image struct {
	Version int
	Members []entry
}

// entry is a record in the file.
type entry struct {
	Member

	In    bool
	Left  time.Time
	Boots []string `json:",omitempty"`
}

// load reads the file.
func (r *Registry) load() {
	if r.opts.File == "" {
		return
	}
	img, err := read(r.opts.File)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		aside := r.opts.File + ".damaged"
		if errMove := os.Rename(r.opts.File, aside); errMove != nil {
			err = errors.Join(err, errMove)
		}
		r.opts.Events.Publish(event.Event{
			Name: event.LeasesDamaged, Message: fmt.Sprintf("%v; it is kept as %s, and agents register anew", err, aside),
		})
		return
	}
	now := r.opts.Now()
	for _, e := range img.Members {
		have := newRecord()
		have.Member, have.in, have.left, have.boots = e.Member, e.In, e.Left, e.Boots
		// The clock may have been set since: no lease is longer than its lifetime. If it is
		// set from now on, that is nothing to leases.
		left := min(max(have.Until.Sub(now), grace), e.Lifetime)
		have.Until = now.Add(left)
		r.records[id{e.Pool, e.Agent}] = have
	}
}

// read reads and judges a file.
func read(path string) (image, error) {
	var img image
	fail := func(err error) (image, error) { return image{}, fmt.Errorf("read the leases: %s: %w", path, err) }
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	if info.Size() > maxFile {
		return fail(fmt.Errorf("%d bytes: at most %d are read", info.Size(), maxFile))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(text, &img); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fail(fmt.Errorf("byte %d: %w", syntax.Offset, err))
		}
		return fail(err)
	}
	if img.Version != fileVersion {
		return fail(fmt.Errorf("version %d: this shuntd reads %d", img.Version, fileVersion))
	}
	seen := make(map[id]bool)
	for i := range img.Members {
		e := &img.Members[i]
		key := id{e.Pool, e.Agent}
		if err := e.Validate(); err != nil {
			return fail(fmt.Errorf("members[%d]: %w", i, err))
		}
		if seen[key] {
			return fail(fmt.Errorf("members[%d]: %s is there twice", i, key))
		}
		seen[key] = true
	}
	return img, nil
}

// save writes the file unless it has the version already. Those who come while it is
// written share the next writing.
func (r *Registry) save(version uint64) {
	if r.opts.File == "" {
		return
	}
	r.saving.Lock()
	defer r.saving.Unlock()
	if r.saved >= version {
		return
	}
	img, has := r.image()
	text, err := json.Marshal(img)
	if err == nil {
		err = renameio.WriteFile(r.opts.File, text, 0o600)
	}
	if err != nil {
		// Traffic goes on with what is known: only a restart would lose it. It is tried
		// again each second.
		if text := fmt.Sprint(errors.Unwrap(err)); r.failed != text {
			r.failed = text
			r.opts.Log.Error("the leases cannot be written: a restart would not know them", "file", r.opts.File, "err", err)
		}
		return
	}
	if r.saved = has; r.failed != "" {
		r.failed = ""
		r.opts.Log.Info("the leases are written again", "file", r.opts.File)
	}
}

func (r *Registry) saveAll() {
	r.mu.Lock()
	version := r.version
	r.mu.Unlock()
	r.save(version)
}

// image returns what the file is to have, and its version.
func (r *Registry) image() (image, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	img := image{Version: fileVersion, Members: make([]entry, 0, len(r.records))}
	for _, have := range r.records {
		img.Members = append(img.Members, entry{Member: have.Member, In: have.in, Left: have.left, Boots: have.boots})
	}
	return img, r.version
}
