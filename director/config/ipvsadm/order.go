package ipvsadm

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/shunt-lb/shunt/director"
)

// SortServices puts services, of which key returns the keys, into the order of
// ipvsadm's lists: by mark, family, protocol, address and port. It compares numbers
// by the sign of their 32-bit difference, so that 192.0.2.1 comes before 10.0.0.1
// (libipvs.c, ipvs_cmp_services). Where that leads in circles the result depends on
// the order before, which should then be the kernel's.
func SortServices[T any](services []T, key func(T) director.ServiceKey) {
	mergeSort(services, func(of, from T) int32 {
		a, b := key(of), key(from)
		return cmp.Or(
			int32(a.Mark-b.Mark),
			int32(a.Address.Addr().BitLen()-b.Address.Addr().BitLen()),
			int32(a.Protocol)-int32(b.Protocol),
			compareAddresses(a.Address.Addr(), b.Address.Addr()),
			int32(a.Address.Port())-int32(b.Address.Port()),
		)
	})
}

// SortServers puts servers, of which address returns the addresses, into the order
// of ipvsadm's lists, from the kernel's: the one added last comes first there. By
// address and port, compared as SortServices does.
func SortServers[T any](servers []T, address func(T) netip.AddrPort) {
	mergeSort(servers, func(of, from T) int32 {
		a, b := address(of), address(from)
		return cmp.Or(compareAddresses(a.Addr(), b.Addr()), int32(a.Port())-int32(b.Port()))
	})
}

// compareAddresses compares as many words as the first one has.
func compareAddresses(a, b netip.Addr) int32 {
	wordsA, wordsB := words(a), words(b)
	for i := range a.BitLen() / 32 {
		if r := int32(wordsA[i] - wordsB[i]); r != 0 {
			return r
		}
	}
	return 0
}

// words returns an address as ipvsadm has it: one of IPv4 is the first word.
func words(addr netip.Addr) (w [4]uint32) {
	bytes := addr.AsSlice()
	for i := range len(bytes) / 4 {
		w[i] = binary.BigEndian.Uint32(bytes[4*i:])
	}
	return w
}

// mergeSort sorts as the C library's qsort did before 2.37, and does again since
// 2.39 (glibc: stdlib/msort.c): that is to be seen where compare is not an order.
func mergeSort[T any](s []T, compare func(a, b T) int32) {
	if len(s) < 2 {
		return
	}
	left, right := s[:len(s)/2], s[len(s)/2:]
	mergeSort(left, compare)
	mergeSort(right, compare)
	merged := make([]T, 0, len(s))
	for len(left) > 0 && len(right) > 0 {
		if compare(left[0], right[0]) <= 0 {
			merged, left = append(merged, left[0]), left[1:]
		} else {
			merged, right = append(merged, right[0]), right[1:]
		}
	}
	copy(s, append(append(merged, left...), right...))
}
