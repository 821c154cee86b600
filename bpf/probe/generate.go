package probe

// The object is committed so that a clone builds with Go alone; CI builds it again
// and fails on a difference.
//go:generate go tool -modfile=../../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem probe -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I ../headers -I /usr/include/x86_64-linux-gnu" -type awaited_key -type awaited_shape kernel src/probe.bpf.c
