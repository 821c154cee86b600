// Package translation is what the importers of other programs' configurations
// share: what comes out of a translation, and how it comes out right.
//
// An importer reads a language it knows (director/config/keepalived,
// director/config/ldirectord), hands each service to a Builder together with the
// place where it stands in the text, and writes a Note for whatever it could not
// carry. The Builder leaves out what no data plane takes, with a Note that says
// where and why, and returns a state that is valid.
//
// The Builder also makes a service's checks of what each of its servers is asked, since
// Shunt asks all servers of a service the same (checks.go).
//
// Whatever is in the text is in the state or in a note: nothing is dropped
// silently. Errors are for texts that cannot be understood at all.
//
// The package knows none of the languages and does no I/O of its own but for
// Host, which reads the files that a text includes.
//
// Start reading at Result and Note.
package translation
