package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director"
)

// flushEvery is after how many connections the answer is pushed to the client.
const flushEvery = 1024

// listConnections streams one JSON object a line (NDJSON), so that neither side
// holds the table in memory. The status has gone out before the walk ends: an
// error in the middle is the last line, {"problem": …}.
func (h *Handler) listConnections(w http.ResponseWriter, r *http.Request) error {
	query, filter, err := h.connectionQuery(r, "limit")
	if err != nil {
		return err
	}
	var limit uint64
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.ParseUint(text, 10, 64); err != nil {
			return invalid(fmt.Sprintf("limit %q is not a number", text), "")
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	sent := uint64(0)
	for connection, err := range h.director.Connections(r.Context(), filter) {
		if err != nil {
			if sent == 0 {
				return err
			}
			_ = lines.Encode(connectionLine{Problem: problemOf(err)})
			return nil
		}
		if err := lines.Encode(connectionLine{Connection: connectionModel(connection)}); err != nil {
			return nil // the client has gone: nobody to tell
		}
		sent++
		if sent == limit {
			break
		}
		if sent%flushEvery == 0 {
			_ = flush.Flush()
		}
	}
	return nil
}

func (h *Handler) countConnections(w http.ResponseWriter, r *http.Request) error {
	_, filter, err := h.connectionQuery(r)
	if err != nil {
		return err
	}
	var count ConnectionCount
	for _, err := range h.director.Connections(r.Context(), filter) {
		if err != nil {
			return err
		}
		count.Count++
	}
	return writeJSON(w, http.StatusOK, count)
}

// connectionQuery reads the filter from the query. Unknown parameters are
// refused: a misspelt filter would show everything.
func (h *Handler) connectionQuery(r *http.Request, others ...string) (url.Values, director.ConnectionFilter, error) {
	var filter director.ConnectionFilter
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, filter, newProblem(http.StatusBadRequest, "bad-request", fmt.Sprintf("query: %v", err), "")
	}
	known := append([]string{"service", "server", "client"}, others...)
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, filter, invalid(fmt.Sprintf("query: unknown parameter %q", name), fmt.Sprintf("known: %q", known))
		}
	}
	if text := query.Get("service"); text != "" {
		if filter.Service, err = h.filterKey(text); err != nil {
			return nil, filter, err
		}
	}
	if text := query.Get("server"); text != "" {
		if filter.Server, err = netip.ParseAddrPort(text); err != nil {
			return nil, filter, invalid(fmt.Sprintf("server %q is not an address and port", text), "write it as 10.0.0.1:80")
		}
	}
	if text := query.Get("client"); text != "" {
		if filter.Client, err = parseClient(text); err != nil {
			return nil, filter, err
		}
	}
	return query, filter, nil
}

// filterKey reads a service's name or URL. A URL need not be a service any more:
// connections outlive it.
func (h *Handler) filterKey(text string) (director.ServiceKey, error) {
	if strings.Contains(text, "://") {
		return director.ParseServiceKey(text)
	}
	return h.director.Resolve(text)
}

// parseClient reads a prefix; an address is one of full length.
func parseClient(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, invalid(fmt.Sprintf("client %q is not an address or prefix", text), "write it as 192.0.2.7 or 192.0.2.0/24")
	}
	return prefix.Masked(), nil
}
