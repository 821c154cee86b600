package config

import (
	_ "embed"
	"slices"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema (2020-12) of the configuration, for editors:
// every key with its type, default and meaning. It knows less than Parse, which
// compares values with each other.
func Schema() []byte { return slices.Clone(schema) }
