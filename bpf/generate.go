package bpf

// The objects are committed so that a clone builds with Go alone; CI builds them
// again and fails on a difference. Headers: libbpf 1.1.2's in headers/, the
// kernel's from linux-libc-dev.
//go:generate -command compile go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I headers -I /usr/include/x86_64-linux-gnu" -type entry4 -type entry6 -type group4 -type group6 -type service -type service_key -type schedule -type server -type server_load -type timeout_set -type destination_key -type destination -type match_key -type match -type server_flags -type template_layout -type destination_shape -type match_layout -type traffic -type hop -type recount -type clock_args -type sweep_args -type sweep_templates -type switch_args -type server_args -type remove_args -type load_args -type load_entry -type load_shape -type load_flags -type load_result -type explain_args -type decider -type correct_args -type access_key -type access_layout -type access_verdict -type event -type masks -type place_layout -type slot -type conn_state -type method -type scheduler -type service_flags -type lifecycle -type midstream -type table_shape -type id_layout -type recipe_layout -type cursor_layout -type hop_layout -type filter_shape -type born_layout -type guard_mode -type service_limits -type service_state -type source_key -type source -type client_key -type table_state -type slot_traffic -type group_traffic -type news_kind -type connection_news -type carry_args -type carry_what -type event_args -type abi_version -type layout
//go:generate compile -output-stem shunt -tags !shunt_layout_next Kernel src/shunt.bpf.c

// The same with another layout of entries (src/layout_next.h), for tests of upgrades.
//go:generate compile -output-stem shunt_next -tags shunt_layout_next Kernel src/shunt.bpf.c -- -DLAYOUT_NEXT
