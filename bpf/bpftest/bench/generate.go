package bench

//go:generate go tool -modfile=../../../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem bench -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I ../../headers -I ../../src -I /usr/include/x86_64-linux-gnu" -type vary Bench src/bench.bpf.c
//go:generate go tool -modfile=../../../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem table -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -mcpu=v3 -I ../../headers -I ../../src -I /usr/include/x86_64-linux-gnu" Table src/table.bpf.c
