package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"github.com/shunt-lb/shunt/realserver"
)

// maxLine is how much of a file is read, bytes.
const maxLine = 64

// fileProbe reads the weight from a file's first line. Unlike a script's, its writer
// need not be root: what it can do is written in it, a number. A wrong line is not
// quoted, as the file may be one that its writer only points to.
type fileProbe struct{ path string }

func (p *fileProbe) ask(context.Context) Result {
	line, err := firstLine(p.path)
	if err != nil {
		return Result{Err: err}
	}
	weight, err := strconv.ParseInt(string(line), 10, 64)
	switch {
	case err != nil:
		return Result{Err: fmt.Errorf("read %s: its first line is not a number", p.path)}
	case weight == -1:
		return Result{Detail: "-1", Err: fmt.Errorf("%s says down", p.path)}
	case weight < -1 || weight > realserver.MaxWeight:
		return Result{Err: fmt.Errorf("read %s: %d is out of range: want -1 to %d", p.path, weight, realserver.MaxWeight)}
	}
	return Result{Detail: fmt.Sprintf("weight %d", weight), Weight: &weight, Absolute: true}
}

// firstLine returns the first line of a regular file, without the space around it.
func firstLine(path string) ([]byte, error) {
	// Opened so that a named pipe does not wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the weight: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the weight: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no regular file", path)
	}
	var buffer [maxLine]byte
	n, err := io.ReadFull(file, buffer[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read the weight: %w", err)
	}
	line, _, _ := bytes.Cut(buffer[:n], []byte("\n"))
	return bytes.TrimSpace(line), nil
}
