// Package script runs an operator's commands: as a user who is root only if it is named,
// bounded in time and output, with an end for all that they begin. A program that others
// could change is refused. It knows nothing of what the commands are for.
//
// A process that is to keep no right to become others has a Helper run them.
//
// Start reading at Command.
package script
