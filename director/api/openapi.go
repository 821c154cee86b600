package api

import _ "embed"

//go:generate go run generate.go

// document is the description of this interface, served as it is.
//
//go:embed openapi.yaml
var document []byte

// operation is what the document says of an operation beyond what oapi-codegen
// makes of it.
type operation struct {
	id     string // operationId
	method string
	path   string   // also the ServeMux pattern's path
	role   Role     // the least a caller needs
	query  []string // the query parameters it takes
	lists  []string // those of them that may be given more than once
}

// pattern returns the ServeMux pattern of the operation.
func (o operation) pattern() string { return o.method + " " + o.path }
