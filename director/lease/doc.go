// Package lease keeps what agents of real servers have registered: servers in pools,
// each until its lease ends, with the load it reports.
//
// It owns the registrations' rules (RFC 5352's ASAP as a model: registration,
// re-registration with load, deregistration, reports of unreachable endpoints), their
// order (no replay), and their file, so that a restart loses none. It does no HTTP
// and tells no caller from another: package api does. What a pool's servers are
// offered as is decided by package offer.
//
// Start reading at Registry.
package lease
