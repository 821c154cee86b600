package xdp

import "github.com/shunt-lb/shunt/bpf"

func isOverloaded(load *bpf.KernelServerLoad) bool {
	return load.Unfit&uint32(bpf.KernelUnfitUNFIT_OVERLOADED) != 0
}

func isSuspended(load *bpf.KernelServerLoad) bool {
	return load.Unfit&uint32(bpf.KernelUnfitUNFIT_SUSPENDED) != 0
}
