package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Client speaks the API over the daemon's socket. Errors the daemon answers are
// *Problem, as are those of reaching it. Safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client for the socket; nothing is opened yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status says how the daemon and its data plane are.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Stats reads all counters.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	return get[Stats](ctx, c, "/v1/stats")
}

// Services lists all services.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	list, err := get[ServiceList](ctx, c, "/v1/services")
	return list.Services, err
}

// Service reads the service with the URL or name.
func (c *Client) Service(ctx context.Context, ref string) (Service, error) {
	return get[Service](ctx, c, servicePath(ref))
}

// AddService adds a service.
func (c *Client) AddService(ctx context.Context, s ServiceConfig) error {
	return c.do(ctx, http.MethodPost, "/v1/services", s, nil)
}

// EditService changes what the edit names.
func (c *Client) EditService(ctx context.Context, ref string, edit ServiceEdit) error {
	return c.do(ctx, http.MethodPatch, servicePath(ref), edit, nil)
}

// RemoveService removes a service with its servers.
func (c *Client) RemoveService(ctx context.Context, ref string) error {
	return c.do(ctx, http.MethodDelete, servicePath(ref), nil, nil)
}

// AddServer adds a server to the service.
func (c *Client) AddServer(ctx context.Context, ref string, s ServerConfig) error {
	return c.do(ctx, http.MethodPost, servicePath(ref)+"/servers", s, nil)
}

// EditServer changes what the edit names.
func (c *Client) EditServer(ctx context.Context, ref, address string, edit ServerEdit) error {
	return c.do(ctx, http.MethodPatch, servicePath(ref)+"/servers/"+segment(address), edit, nil)
}

// RemoveServer removes a server from the service.
func (c *Client) RemoveServer(ctx context.Context, ref, address string) error {
	return c.do(ctx, http.MethodDelete, servicePath(ref)+"/servers/"+segment(address), nil, nil)
}

// ConnectionQuery selects connections; empty fields match everything.
type ConnectionQuery struct {
	Service string // URL or name
	Server  string // address and port
	Client  string // address or prefix
	Limit   uint64 // 0: all
}

// Connections streams the connections that match. A walk that breaks off ends
// with an error.
func (c *Client) Connections(ctx context.Context, q ConnectionQuery) iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		body, err := c.send(ctx, http.MethodGet, "/v1/connections"+q.encode(), nil)
		if err != nil {
			yield(Connection{}, err)
			return
		}
		defer func() { _ = body.Close() }()
		for lines := json.NewDecoder(body); ; {
			var line connectionLine
			switch err := lines.Decode(&line); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(Connection{}, fmt.Errorf("read the list of connections: %w", err))
				return
			case line.Problem != nil:
				yield(Connection{}, line.Problem)
				return
			case line.Connection != nil && !yield(*line.Connection, nil):
				return
			}
		}
	}
}

// CountConnections counts the connections that match; Limit is not looked at.
func (c *Client) CountConnections(ctx context.Context, q ConnectionQuery) (uint64, error) {
	q.Limit = 0
	count, err := get[ConnectionCount](ctx, c, "/v1/connections/count"+q.encode())
	return count.Count, err
}

// Timeouts reads the connection timeouts.
func (c *Client) Timeouts(ctx context.Context) (Timeouts, error) {
	return get[Timeouts](ctx, c, "/v1/timeouts")
}

// EditTimeouts changes what the edit names.
func (c *Client) EditTimeouts(ctx context.Context, edit TimeoutsEdit) error {
	return c.do(ctx, http.MethodPatch, "/v1/timeouts", edit, nil)
}

// Detach takes the data plane off the host and ends the daemon.
func (c *Client) Detach(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/detach", nil, nil)
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	return v, c.do(ctx, http.MethodGet, path, nil, &v)
}

// do sends a request and decodes the answer into v unless that is nil. Fields
// that this version does not know are passed over: the daemon may be newer.
func (c *Client) do(ctx context.Context, method, path string, body, v any) error {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(answer).Decode(v); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// send returns the body of a successful answer, which the caller closes.
func (c *Client) send(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://shunt"+path, content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if answer.StatusCode < 300 {
		return answer.Body, nil
	}
	defer func() { _ = answer.Body.Close() }()
	var problem Problem
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(&problem); err != nil || problem.Detail == "" {
		return nil, fmt.Errorf("the daemon on %s answers %s: is it a shuntd?", c.socket, answer.Status)
	}
	return nil, &problem
}

// unreachable says why the daemon could not be asked, and what to do.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return newProblem(http.StatusServiceUnavailable, "not-running",
			fmt.Sprintf("shuntd is not running: nothing answers on %s", c.socket),
			"start it with `shuntd --config FILE`; another socket is given by --socket")
	case errors.Is(err, fs.ErrPermission):
		return newProblem(http.StatusForbidden, "permission",
			fmt.Sprintf("open %s: permission denied", c.socket), "you must be root: try sudo")
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // the URL is made up: it would only confuse
	}
	return fmt.Errorf("ask shuntd on %s: %w", c.socket, err)
}

func (q ConnectionQuery) encode() string {
	values := url.Values{}
	for name, value := range map[string]string{"service": q.Service, "server": q.Server, "client": q.Client} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.Limit > 0 {
		values.Set("limit", strconv.FormatUint(q.Limit, 10))
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

func servicePath(ref string) string { return "/v1/services/" + segment(ref) }

// segment escapes text as one path segment, dots included: "." and ".." alone
// would be resolved away.
func segment(text string) string {
	return strings.ReplaceAll(url.PathEscape(text), ".", "%2E")
}
