package capture

// As bpf/generate.go's: committed, built again by CI.
//go:generate go tool -modfile=../../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem capture -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I ../headers -I ../src -I /usr/include/x86_64-linux-gnu" -type capture_key -type capture_range -type capture_record -type capture_missing -type capture_point -type capture_side -type capture_shape kernel src/capture.bpf.c
