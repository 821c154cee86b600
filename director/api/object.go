package api

import (
	"errors"

	"github.com/shunt-lb/shunt/director"
)

// objectError is an error of the director's with the codes of what it is about:
// the director says only that something exists already or is not found.
type objectError struct {
	error
	exists, missing ProblemCode
}

// Unwrap returns the director's error.
func (e *objectError) Unwrap() error { return e.error }

// about gives an error the codes it stands for if something exists already, or is
// missing; nil stays nil.
func about(err error, exists, missing ProblemCode) error {
	if err == nil {
		return nil
	}
	return &objectError{err, exists, missing}
}

// codeOf returns the code of an error whose kind has the given one.
func codeOf(err error, code ProblemCode) ProblemCode {
	exists, missing := objectCodes(err)
	switch {
	case code == ProblemCodeExists && exists != "":
		return exists
	case code == ProblemCodeNotFound && missing != "":
		return missing
	default:
		return code
	}
}

// objectCodes returns what exists already or is missing, by the step that failed
// in the kernel, else by the request.
func objectCodes(err error) (exists, missing ProblemCode) {
	if failed, ok := errors.AsType[*director.OperationError](err); ok {
		switch failed.Operation.(type) {
		case director.AddService, director.EditService, director.RemoveService:
			return ProblemCodeServiceExists, ProblemCodeNoService
		case director.AddServer, director.EditServer, director.RemoveServer:
			return ProblemCodeServerExists, ProblemCodeNoServer
		case director.StartSync, director.StopSync:
			return ProblemCodeSyncRunning, ProblemCodeNoSync
		}
	}
	if object, ok := errors.AsType[*objectError](err); ok {
		return object.exists, object.missing
	}
	return "", ""
}

// resolve returns the key of the desired service that a URL or a name stands for.
func (h *Handler) resolve(ref string) (director.ServiceKey, error) {
	key, err := h.director.Resolve(ref)
	return key, about(err, "", ProblemCodeNoService)
}

// aboutServer gives an error about a server of the service its codes. The service
// may have gone meanwhile.
func (h *Handler) aboutServer(key director.ServiceKey, err error) error {
	if err == nil {
		return nil
	}
	if _, gone := h.director.Service(key); gone != nil {
		return about(err, ProblemCodeServiceExists, ProblemCodeNoService)
	}
	return about(err, ProblemCodeServerExists, ProblemCodeNoServer)
}
