//go:build !linux || !amd64

package kernel

import (
	"context"
	"errors"
)

// hasLibipvs: libipvs does not compile on most architectures, see decision 0004.
const hasLibipvs = false

func openLibipvs(context.Context, Options) (Driver, error) {
	return nil, errors.New("open IPVS: libipvs is for amd64")
}
