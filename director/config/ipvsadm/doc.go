// Package ipvsadm is the language of ipvsadm 1.31 as values: what its command
// line and its save files say, which combinations it refuses and with which
// words, and the text that it saves. The personality of cmd/shunt and shunt
// import speak it.
//
// Parser.Parse turns arguments into a Command, or into a *UsageError that has what the
// real program would write and its exit status; checks come in its order, so
// that of several errors the same one is told. Restore reads a save file line by
// line; Save writes one. Command.Service and Save convert to and from the
// director's values.
//
// The package knows no kernel and no daemon. Names of hosts and ports are looked
// up by Names, the system's files and resolver unless another is given.
//
// What is said of ipvsadm here was read in ipvsadm.c, config_stream.c and
// libipvs.c of version 1.31 and in popt 1.19, and is compared with the real
// program by the tests whose names begin with TestGuest. Start with command.go,
// then parse.go.
package ipvsadm
