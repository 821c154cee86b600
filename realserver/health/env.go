package health

import (
	"bufio"
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/shunt-lb/shunt/realserver/script"
)

// DefaultScriptUser runs scripts where none is named.
const DefaultScriptUser = "nobody"

// Env is what probers share. The zero value works: each prober then has sockets and
// files of its own. Safe for concurrent use.
type Env struct {
	// ScriptUser runs the scripts that name no user; "": DefaultScriptUser. It is root
	// only if this says so.
	ScriptUser string

	shared *shared
}

// NewEnv returns what the probers of one Monitor share. Close ends it.
func NewEnv(scriptUser string) Env { return Env{ScriptUser: scriptUser, shared: newShared()} }

// RunBy has the helper process run commands. It is called before the first probe, of an
// Env that NewEnv made; whoever started the helper closes it, after Close.
func (e Env) RunBy(h *script.Helper) { e.shared.helper.Store(h) }

// helper is what runs commands; nil: the process itself does.
func (e Env) helper() *script.Helper {
	if e.shared == nil {
		return nil
	}
	return e.shared.helper.Load()
}

// Close ends what is shared, after the last prober was closed.
func (e Env) Close() {
	if e.shared != nil {
		e.shared.close()
	}
}

// shared is what Env keeps.
type shared struct {
	echoes    *echoes
	files     *pemFiles
	http2     *http.Transport
	helper    atomic.Pointer[script.Helper]
	readers   sync.Pool // of *bufio.Reader
	bodies    sync.Pool // of *bytes.Buffer
	datagrams sync.Pool // of *[maxExchange]byte
}

func newShared() *shared {
	return &shared{
		echoes:    newEchoes(),
		files:     &pemFiles{known: map[string]*pemFile{}},
		http2:     newHTTP2Transport(),
		readers:   sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }},
		bodies:    sync.Pool{New: func() any { return new(bytes.Buffer) }},
		datagrams: sync.Pool{New: func() any { return new([maxExchange]byte) }},
	}
}

func (s *shared) close() {
	s.echoes.close()
	s.http2.CloseIdleConnections()
}

// keepBody is the largest buffer that is kept for the next body, bytes: one large answer
// does not hold its memory for ever.
const keepBody = 64 << 10

func (s *shared) giveBody(b *bytes.Buffer) {
	if b.Cap() <= keepBody {
		b.Reset()
		s.bodies.Put(b)
	}
}
