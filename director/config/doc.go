// Package config turns the YAML configuration into validated settings and
// desired state, with the file, line, column and excerpt of everything wrong in
// it, and desired state into YAML again.
//
// It owns the text's form: keys, units, defaults, the canonical format, the
// schema for editors. What makes a service valid is package director's to say;
// its problems are mapped back to the lines they come from. Aliases, anchors,
// tags and merge keys are refused, so that a small file is a small
// configuration; lines and values are limited too. The package reads the files
// it is told of and those they include, and does no other I/O; of the data planes
// it knows director.Features alone.
//
// Start reading at Parse and Load; Format and Fmt are the way back.
// testdata/reference.yaml and, of IPVS, reference-ipvs.yaml have every key; the
// decoder's fields are the one list of them, which schema and references are held
// to by tests.
package config
