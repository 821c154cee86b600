package api

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"syscall"
)

// credentials are what the files of TLSOptions say.
type credentials struct {
	certificate tls.Certificate
	clientCA    *x509.CertPool // nil: client certificates are not accepted
	tokens      []token
	stamps      stamps
}

// stamps tell whether the four files have changed. Comparable.
type stamps [4]stamp

// stamp is what changes when a file is written or replaced; zero if there is no
// file.
type stamp struct {
	inode   uint64
	size    int64
	changed syscall.Timespec
}

// stamps looks at the files.
func (o TLSOptions) stamps() stamps {
	var all stamps
	for i, file := range []string{o.Certificate, o.Key, o.ClientCA, o.Tokens} {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			all[i] = stamp{inode: stat.Ino, size: stat.Size, changed: stat.Ctim}
		}
	}
	return all
}

// read reads the files. The stamps are taken first: what changes meanwhile is
// read again.
func (o TLSOptions) read() (*credentials, error) {
	c := &credentials{stamps: o.stamps()}
	var err error
	if c.certificate, err = tls.LoadX509KeyPair(o.Certificate, o.Key); err != nil {
		return nil, fmt.Errorf("read the certificate and its key: %w", err)
	}
	if o.ClientCA != "" {
		if c.clientCA, err = readPool(o.ClientCA); err != nil {
			return nil, err
		}
	}
	if o.Tokens != "" {
		if c.tokens, err = readTokens(o.Tokens); err != nil {
			return nil, err
		}
	}
	return c, nil
}
