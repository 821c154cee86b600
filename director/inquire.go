package director

import "context"

// Kill removes the data plane's connections and templates that match, and
// returns how many there were. What is desired stays as it is.
func (d *Director) Kill(ctx context.Context, filter ConnectionFilter) (uint64, error) {
	return d.dp.Kill(ctx, filter)
}

// Decide says which server a packet would get, by the data plane's own way of
// deciding, and changes nothing.
func (d *Director) Decide(ctx context.Context, question Question) (Decision, error) {
	return d.dp.Decide(ctx, question)
}
