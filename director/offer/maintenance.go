package offer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shunt-lb/shunt/director"
)

// A maintenance folder works as ldirectord's maintenancedir: a file whose name is a
// server's address or host name, with or without ":" and its port, has the server out.
// What is in the file does not matter.

const (
	// folderInterval is how often folders are looked at.
	folderInterval = time.Second
	// maxNames is how many files a folder may have: with more, who is meant by those that
	// are left out would be back.
	maxNames = 4096
	// nameKept is how long the addresses of a host name are believed, nameTimeout how
	// long asking for those of a folder may take, and namesAsked how many are asked for at
	// a time.
	nameKept    = time.Minute
	nameTimeout = 5 * time.Second
	namesAsked  = 16
)

// awayFile is a file in a maintenance folder.
type awayFile struct {
	name  string // the file's
	host  string // of the name, without brackets
	port  uint16 // 0: any
	addrs []netip.Addr
}

// names reports whether the file is about the server.
func (f *awayFile) names(server netip.AddrPort) bool {
	return (f.port == 0 || f.port == server.Port()) && slices.Contains(f.addrs, server.Addr())
}

// parseAway reads a file's name. A host name's addresses are to be asked for.
func parseAway(name string) awayFile {
	f := awayFile{name: name, host: name}
	if addr, err := netip.ParseAddr(name); err == nil {
		f.addrs = []netip.Addr{addr.Unmap()}
		return f
	}
	if host, port, err := net.SplitHostPort(name); err == nil {
		if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
			f.host, f.port = host, uint16(number)
		}
	}
	f.host = strings.TrimSuffix(strings.TrimPrefix(f.host, "["), "]")
	if addr, err := netip.ParseAddr(f.host); err == nil {
		f.addrs = []netip.Addr{addr.Unmap()}
	}
	return f
}

// readFolder returns the files of a folder, in the order of their names; none if there
// is no such folder. One that others may write to is refused.
func readFolder(path string) ([]awayFile, error) {
	// Not to wait for what is no folder: a named pipe's writer may never come.
	folder, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	switch {
	case os.IsNotExist(err):
		return nil, nil
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("read the maintenance folder %s: it is no folder", path)
	case err != nil:
		return nil, fmt.Errorf("read the maintenance folder: %w", err)
	}
	defer folder.Close()
	info, err := folder.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the maintenance folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return nil, fmt.Errorf("read the maintenance folder %s: it belongs to user %d, who could take servers out", path, stat.Uid)
	case info.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("read the maintenance folder %s: anyone may write it (mode %04o)", path, info.Mode().Perm())
	case info.Mode().Perm()&0o020 != 0 && stat.Gid != 0 && int(stat.Gid) != os.Getegid():
		return nil, fmt.Errorf("read the maintenance folder %s: group %d may write it (mode %04o): want root's group, or the daemon's, %d", path, stat.Gid, info.Mode().Perm(), os.Getegid())
	}
	names, err := folder.Readdirnames(maxNames + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF): // that one is of an empty folder
		return nil, fmt.Errorf("read the maintenance folder %s: %w", path, err)
	case len(names) > maxNames:
		return nil, fmt.Errorf("read the maintenance folder %s: it has more than %d files", path, maxNames)
	}
	slices.Sort(names)
	files := make([]awayFile, 0, len(names))
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			files = append(files, parseAway(name))
		}
	}
	return files, nil
}

// folderWatch looks at the folders that services name.
type folderWatch struct {
	keeper *Keeper
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	hosts  map[string]resolved
}

// resolved are the addresses of a host name.
type resolved struct {
	addrs []netip.Addr
	until time.Time
}

// run looks until the context ends.
func (w *folderWatch) run(ctx context.Context) {
	ticker := time.NewTicker(folderInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.forget(time.Now())
		for _, path := range w.keeper.folders() {
			files, err := readFolder(path)
			w.keeper.troubled("maintenance folder "+path, err)
			if err != nil {
				continue // what it said before stays
			}
			w.look(ctx, path, files)
		}
	}
}

// look takes in the files of a folder: at once what is known of them, and what is to be
// asked for once that is answered.
func (w *folderWatch) look(ctx context.Context, path string, files []awayFile) {
	now := time.Now()
	due := make(map[string]string) // files by their host names
	for i := range files {
		f := &files[i]
		if f.addrs != nil {
			continue
		}
		known, ok := w.hosts[f.host]
		if f.addrs = known.addrs; !ok || !now.Before(known.until) {
			due[f.host] = f.name
		}
	}
	w.keeper.setAway(path, files)
	if len(due) == 0 {
		return
	}
	w.ask(ctx, due)
	files = slices.Clone(files)
	for i := range files {
		if _, asked := due[files[i].host]; asked {
			files[i].addrs = w.hosts[files[i].host].addrs
		}
	}
	w.keeper.setAway(path, files)
}

// ask asks for the addresses of host names, which lead to their files.
func (w *folderWatch) ask(ctx context.Context, due map[string]string) {
	limited, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(namesAsked)
	var mu sync.Mutex // guards w.hosts
	for host, file := range due {
		group.Go(func() error {
			addrs, err := w.lookup(limited, host)
			mu.Lock()
			known, ok := w.hosts[host]
			if err == nil || !ok { // what is known stays while it cannot be asked
				known.addrs = addrs
			}
			known.until = time.Now().Add(nameKept)
			w.hosts[host] = known
			mu.Unlock()
			w.keeper.troubled("the name of the file "+strconv.Quote(file)+" in a maintenance folder", err)
			return nil
		})
	}
	_ = group.Wait() // none fails
}

// forget forgets the host names that no one has asked about for some time.
func (w *folderWatch) forget(now time.Time) {
	maps.DeleteFunc(w.hosts, func(_ string, known resolved) bool { return now.Sub(known.until) > nameKept })
}

// lookForFolders reads the folders that were not read yet, so that who is in
// maintenance gets nothing from the first plan on. Host names are asked for later.
func (k *Keeper) lookForFolders(s director.State) {
	for i := range s.Services {
		path := s.Services[i].Health.Maintenance
		if _, read := k.away[path]; path == "" || read {
			continue
		}
		files, err := readFolder(path)
		if err != nil {
			continue // told by the next look
		}
		k.away[path] = files
	}
}

// folders returns the folders that services name.
func (k *Keeper) folders() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]bool)
	for _, e := range k.entries {
		if path := e.service.Health.Maintenance; path != "" {
			all[path] = true
		}
	}
	maps.DeleteFunc(k.away, func(path string, _ []awayFile) bool { return !all[path] })
	return slices.Sorted(maps.Keys(all))
}

// setAway takes in the files of a folder.
func (k *Keeper) setAway(path string, files []awayFile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	same := func(a, b awayFile) bool { return a.name == b.name && slices.Equal(a.addrs, b.addrs) }
	if slices.EqualFunc(k.away[path], files, same) {
		return
	}
	k.away[path] = files
	for _, e := range k.entries {
		if e.service.Health.Maintenance == path {
			e.dirty = true
		}
	}
	k.stir()
}

// awayBy returns the name of the file that has the server in maintenance; "": none.
func (k *Keeper) awayBy(service *director.Service, server netip.AddrPort) string {
	for i := range k.away[service.Health.Maintenance] {
		if f := &k.away[service.Health.Maintenance][i]; f.names(server) {
			return f.name
		}
	}
	return ""
}

// lookupHost asks the host's resolver.
func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}
