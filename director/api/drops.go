package api

import (
	"net/http"

	"github.com/shunt-lb/shunt/director"
)

// ListDrops answers listDrops.
func (e endpoints) ListDrops(w http.ResponseWriter, r *http.Request, p ListDropsParams) {
	e.read(w, func() (any, error) {
		var key director.ServiceKey
		if p.Service != nil && *p.Service != "" {
			var err error
			if key, err = e.filterKey(*p.Service); err != nil {
				return nil, err
			}
		}
		drops, err := e.director.Drops(r.Context())
		if err != nil {
			return nil, err
		}
		names, list := e.names(), DropList{Drops: []Drop{}}
		for _, d := range drops {
			switch {
			case key != (director.ServiceKey{}) && d.Service != key,
				p.Reason != nil && *p.Reason != "" && d.Reason != *p.Reason,
				p.Interface != nil && *p.Interface != "" && d.Interface != *p.Interface:
				continue
			}
			m := Drop{
				Reason: d.Reason, Number: d.Number, Kind: string(d.Kind), Removed: d.Removed, Interface: d.Interface,
				Packets: d.Packets, Bytes: d.Bytes,
			}
			if d.Service != (director.ServiceKey{}) {
				m.Service, m.Name = d.Service.String(), names[d.Service]
			}
			list.Drops = append(list.Drops, m)
		}
		return list, nil
	})
}
