package bpf

// The objects are committed so that a clone builds with Go alone; CI builds them
// again and fails on a difference. Headers: libbpf 1.1.2's in headers/, the
// kernel's from linux-libc-dev.
//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem shunt -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I headers -I /usr/include/x86_64-linux-gnu" -type entry4 -type entry6 -type group4 -type group6 -type service -type service_key -type schedule -type server -type server_load -type traffic -type hop -type recount -type clock_args -type sweep_args -type switch_args -type server_args -type remove_args -type correct_args -type access_key -type access_layout -type access_verdict -type event -type masks -type slot -type conn_state -type method -type scheduler -type service_flags -type lifecycle -type midstream -type table_shape -type id_layout -type recipe_layout -type cursor_layout -type hop_layout -type filter_shape Kernel src/shunt.bpf.c
