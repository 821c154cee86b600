// Package health asks servers whether they are alive: checks, when they are asked,
// and how many answers make a server up or down.
//
// It owns the probes, their pace (interval, jitter, spread start, retry after a
// contradiction), and the state of each check of each address. One
// probe answers for all who want the same of the same address. It refuses to know
// services, weights and data planes: what follows from a state is package offer's.
//
// Start reading at Monitor.
package health
