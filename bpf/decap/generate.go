package decap

// The object is committed so that a clone builds with Go alone; CI builds it again
// and fails on a difference.
//go:generate go tool -modfile=../../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem decap -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I ../headers -I ../src -I /usr/include/x86_64-linux-gnu" -type decap_version -type decap_type -type decap_shape -type decap_role -type decap_prefix -type decap_count -type decap_event kernel src/decap.bpf.c
