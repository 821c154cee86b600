package director

import "context"

// Zero sets the counters of the service and its servers to zero, of all services
// if the key is zero. What is desired stays as it is.
func (d *Director) Zero(ctx context.Context, key ServiceKey) error {
	if err := d.dp.Zero(ctx, key); err != nil {
		return err
	}
	what := "all services"
	if key != (ServiceKey{}) {
		what = key.String()
	}
	d.opts.Log.Info("counters set to zero", "of", what)
	return nil
}

// Found reads all that the kernel holds, what is foreign included.
func (d *Director) Found(ctx context.Context) (State, error) { return d.found(ctx) }

// Features says what the data plane can do.
func (d *Director) Features() Features { return d.features }

// Decide says which server a packet would get, by the data plane's own way of
// deciding, and changes nothing.
func (d *Director) Decide(ctx context.Context, question Question) (Decision, error) {
	return d.dp.Decide(ctx, question)
}
