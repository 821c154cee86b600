package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// credentials are what the files of TLSOptions say, or why they say nothing.
type credentials struct {
	certificate    tls.Certificate
	certificateErr error
	clientCA       *x509.CertPool // nil: client certificates are not accepted
	clientCAErr    error
	tokens         []token
	tokensErr      error
	stamps         stamps
}

// err joins what is wrong with the files; nil if nothing is.
func (c *credentials) err() error {
	return errors.Join(c.certificateErr, c.clientCAErr, c.tokensErr)
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
func (o TLSOptions) read() *credentials {
	c := &credentials{stamps: o.stamps()}
	var err error
	if c.certificate, err = tls.LoadX509KeyPair(o.Certificate, o.Key); err != nil {
		c.certificateErr = fmt.Errorf("read the certificate and its key: %w", err)
	}
	if o.ClientCA != "" {
		c.clientCA, c.clientCAErr = readPool(o.ClientCA)
	}
	if o.Tokens != "" {
		c.tokens, c.tokensErr = readTokens(o.Tokens)
	}
	return c
}
