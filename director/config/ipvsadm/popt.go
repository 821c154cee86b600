package ipvsadm

import "strings"

// scanner takes a command line apart as popt 1.19 does, of which ipvsadm's
// spellings are: options anywhere, in bundles, with --name=value, -nVALUE and
// -n=VALUE; names in full only; what is no option is kept for later (popt.c,
// poptGetNextOpt).
type scanner struct {
	args []string
	// posix ends the options at the first argument that is none.
	posix bool

	next      int    // what is looked at next
	bundle    string // the rest of a bundle of short options
	rest      bool   // no option follows: after --
	taken     []bool // arguments that stand elsewhere by now (see expand)
	leftovers []string
}

// scanError is popt's word for what is wrong with an option.
type scanError string

func (e scanError) Error() string { return string(e) }

// The errors of popt that ipvsadm's table of options can lead to.
const (
	errEnd         scanError = "no more options"
	errNoArgument  scanError = "missing argument"
	errUnwanted    scanError = "option does not take an argument"
	errUnknown     scanError = "unknown option"
	afterOptions             = "--"
	nextArgumentAt           = "!#:+" // popt.c, expandNextArg
)

// option returns the next option and its argument, nil if it has none; errEnd
// after the last.
func (s *scanner) option() (*option, *string, error) {
	if s.taken == nil {
		s.taken = make([]bool, len(s.args))
	}
	for {
		if s.bundle != "" {
			return s.short()
		}
		if s.next >= len(s.args) {
			return nil, nil, errEnd
		}
		arg := s.args[s.next]
		s.next++
		switch {
		case s.taken[s.next-1]:
		case s.rest || arg == "-" || !strings.HasPrefix(arg, "-"):
			s.rest = s.rest || s.posix
			s.leftovers = append(s.leftovers, arg)
		case arg == afterOptions:
			s.rest = true
		case strings.HasPrefix(arg, "--"):
			return s.long(arg[2:])
		default:
			s.bundle = arg[1:]
		}
	}
}

func (s *scanner) long(text string) (*option, *string, error) {
	name, value, hasValue := strings.Cut(text, "=")
	found := findOption(func(o *option) bool { return o.long == name })
	switch {
	case found == nil:
		return nil, nil, errUnknown
	case found.argument == argumentNone && hasValue:
		return nil, nil, errUnwanted
	case found.argument == argumentNone:
		return found, nil, nil
	case hasValue:
		return found, s.expand(value), nil
	default:
		return s.following(found)
	}
}

func (s *scanner) short() (*option, *string, error) {
	letter, rest := s.bundle[0], s.bundle[1:]
	s.bundle = ""
	found := findOption(func(o *option) bool { return o.short == letter && letter != 0 })
	switch {
	case found == nil:
		return nil, nil, errUnknown
	case found.argument == argumentNone && strings.HasPrefix(rest, "="):
		return nil, nil, errUnwanted
	case found.argument == argumentNone:
		s.bundle = rest
		return found, nil, nil
	case rest != "":
		return found, s.expand(strings.TrimPrefix(rest, "=")), nil
	default:
		return s.following(found)
	}
}

// following takes the argument that follows the option, whatever it looks like:
// only an optional one must not look like an option.
func (s *scanner) following(o *option) (*option, *string, error) {
	if s.next >= len(s.args) {
		if o.argument == argumentOptional {
			return o, nil, nil
		}
		return nil, nil, errNoArgument
	}
	arg := s.args[s.next]
	if o.argument == argumentOptional && strings.HasPrefix(arg, "-") {
		return o, nil, nil
	}
	s.next++
	return o, s.expand(arg), nil
}

// expand puts the next argument that is no option in the place of each !#:+ in
// an option's argument. Where there is none but options follow, popt 1.19 looks
// for ever; here the text stays as it is.
func (s *scanner) expand(text string) *string {
	if strings.Contains(text, nextArgumentAt) {
		for i := s.next; i < len(s.args); i++ {
			if !s.taken[i] && !strings.HasPrefix(s.args[i], "-") {
				s.taken[i] = true
				text = strings.ReplaceAll(text, nextArgumentAt, s.args[i])
				break
			}
		}
	}
	return &text
}

// last is the argument that an error is about: the one looked at last (popt.c,
// poptBadOption), which may be an option's value.
func (s *scanner) last() string { return s.args[s.next-1] }
