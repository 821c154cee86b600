package health

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxPEM is the largest file of certificates that is read, bytes.
const maxPEM = 8 << 20

// pemFiles reads files of certificates, each once until it changes, whoever needs them.
// Safe for concurrent use.
type pemFiles struct {
	mu sync.Mutex
	// known are the files by their path, pairs by both. It has as many entries as were
	// ever named in checks.
	known map[string]*pemFile
}

// pemFile is what a file, or a pair of them, was when it was last good.
type pemFile struct {
	stamp [2]fileStamp
	stale error // why what is there now is not used; nil: it is
	roots *x509.CertPool
	pair  *tls.Certificate
}

// fileStamp tells a file from what it was before.
type fileStamp struct {
	info os.FileInfo
}

func (s fileStamp) same(o fileStamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil
	}
	return os.SameFile(s.info, o.info) && s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime()) &&
		time.Since(o.info.ModTime()) > granularity
}

// granularity is the coarsest step of file times: a file changed so lately may change
// again without showing it.
const granularity = 20 * time.Millisecond

// authorities returns the trusted certificates in a file; nil, the system's, for "".
// stale says why those of before are returned.
func (f *pemFiles) authorities(path string) (roots *x509.CertPool, stale, err error) {
	if path == "" {
		return nil, nil, nil
	}
	entry, err := f.read(path, []string{path}, func(texts [][]byte) (*pemFile, error) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(texts[0]) {
			return nil, fmt.Errorf("read certificates of %s: there is none", path)
		}
		return &pemFile{roots: pool}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return entry.roots, entry.stale, nil
}

// pair returns our certificate and key; nil for "".
func (f *pemFiles) pair(certificate, key string) (pair *tls.Certificate, stale, err error) {
	if certificate == "" {
		return nil, nil, nil
	}
	entry, err := f.read(certificate+"\x00"+key, []string{certificate, key}, func(texts [][]byte) (*pemFile, error) {
		pair, err := tls.X509KeyPair(texts[0], texts[1])
		if err != nil {
			return nil, fmt.Errorf("read certificate %s with key %s: %w", certificate, key, err)
		}
		return &pemFile{pair: &pair}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return entry.pair, entry.stale, nil
}

// read returns the entry of a name as its files are now. Files that are not good any
// more leave the entry as it was, with a note: our own files are no fault of servers.
func (f *pemFiles) read(name string, paths []string, parse func([][]byte) (*pemFile, error)) (pemFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stamp [2]fileStamp
	var failed error
	for i, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read certificates: %w", err))
		} else if !info.Mode().IsRegular() {
			failed = errors.Join(failed, fmt.Errorf("read certificates of %s: it is no regular file", path))
		}
		stamp[i].info = info
	}
	last := f.known[name]
	if last != nil && failed == nil && last.stamp[0].same(stamp[0]) && last.stamp[1].same(stamp[1]) {
		return *last, nil
	}
	var fresh *pemFile
	if failed == nil {
		fresh, failed = load(paths, parse)
	}
	switch {
	case failed == nil:
		fresh.stamp = stamp
		f.known[name] = fresh
		return *fresh, nil
	case last == nil:
		return pemFile{}, failed
	default:
		last.stamp, last.stale = stamp, failed
		return *last, nil
	}
}

func load(paths []string, parse func([][]byte) (*pemFile, error)) (*pemFile, error) {
	texts := make([][]byte, len(paths))
	for i, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		text, err := io.ReadAll(io.LimitReader(file, maxPEM+1))
		_ = file.Close() // Only read.
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		if len(text) > maxPEM {
			return nil, fmt.Errorf("read certificates of %s: the file has more than %d bytes", path, maxPEM)
		}
		texts[i] = text
	}
	return parse(texts)
}
