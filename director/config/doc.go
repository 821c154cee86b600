// Package config turns the YAML configuration into validated settings and
// desired state, with the file, line and column of everything wrong in it.
//
// It owns the text's form: keys, units, defaults. What makes a service valid is
// package director's to say; its problems are mapped back to the lines they
// come from. Aliases and merge keys are refused, so that a small file is a small
// configuration. The package reads one file and does no other I/O; it knows no
// data plane.
//
// Start reading at Parse; testdata/reference.yaml has every key.
package config
