#!/usr/bin/env bash
# The gate: what make test and CI run, step by step, each with its time. It runs
# all steps, so that one run shows everything that is wrong. Given names of steps,
# it runs those only.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export REQUIRE_PRIVILEGED=1 # what wants root and has it not is a failure

all=(setup commits format lint generated build unit root guest ipvs differential instructions)

run() {
	case $1 in
	setup) scripts/setup.sh ;;
	commits) [ ! -e .git ] || scripts/check-commits.sh ;;
	format) scripts/format.sh check ;;
	lint) scripts/lint.sh ;;
	generated) scripts/check-generated.sh ;;
	build) build ;;
	unit)
		# Without any capability, as on a developer's machine: what wants
		# root is skipped here and comes next. For the race detector.
		REQUIRE_PRIVILEGED=0 setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
			scripts/gotest.sh -race ./...
		;;
	root)
		# Programs loaded, namespaces, daemon and CLI.
		local packages
		mapfile -t packages < <(go list ./... | grep -v -e '/scripts/guest$' -e '/directortest/ipvs$')
		scripts/gotest.sh "${packages[@]}"
		;;
	guest)
		# The oldest supported kernel; its IPVS beside the fast path. Without
		# what the step root runs and is slow on an emulated CPU.
		SHUNT_GUEST=1 CGO_ENABLED=0 scripts/gotest.sh -timeout 25m -parallel 24 -skip '^TestConformance$' \
			-exec "$PWD/scripts/guest/run.sh -t 1500 -I" ./scripts/guest ./bpf/... ./director/xdp &&
			make -s build &&
			SHUNT_GUEST=1 SHUNT_BIN=/bin CGO_ENABLED=0 scripts/gotest.sh -run '^TestMigration' \
				-exec "$PWD/scripts/guest/run.sh -I -k nf_tables -b '$PWD/bin/shuntd $PWD/bin/shunt nft'" ./cmd/shuntd/labtest
		;;
	ipvs)
		# The kernel's IPVS as data plane; ipvsadm's, keepalived's and
		# ldirectord's languages beside the real programs.
		make -s build &&
			SHUNT_BIN=$PWD/bin SHUNT_GUEST=uml CGO_ENABLED=0 scripts/gotest.sh -timeout 15m -run '^TestGuest' -exec "$PWD/scripts/guest/uml.sh -t 900" \
				./director/ipvs/... ./director/config/{ipvsadm,keepalived,ldirectord} ./cmd/shunt/ipvsadm ./cmd/shuntd/labtest
		;;
	differential) differential ;;
	instructions)
		# The fast path against the committed baseline, counted by the
		# guest's clock: the same on every machine.
		SHUNT_GUEST=icount CGO_ENABLED=0 scripts/gotest.sh -run Instructions \
			-exec "$PWD/scripts/guest/run.sh -i" ./scripts/guest ./bpf/...
		;;
	*)
		echo "check.sh: unknown step $1; there are: ${all[*]}" >&2
		return 2
		;;
	esac
}

# Drawn cases on the kernel's IPVS and on the models, then what the kernel answered
# on the fast path. SHUNT_SEED=N draws the same cases again.
differential() {
	export SHUNT_SEED=${SHUNT_SEED:-$((RANDOM * 32768 + RANDOM))}
	printf 'cases drawn from SHUNT_SEED=%s on\n' "$SHUNT_SEED"
	local out result=0
	out=$(mktemp -d "${TMPDIR:-/tmp}/shunt-differential.XXXXXX") || return
	SHUNT_GUEST=uml CGO_ENABLED=0 scripts/gotest.sh -parallel 24 -exec "$PWD/scripts/guest/uml.sh -o $out" \
		./director/directortest/ipvs ./director/directortest/differential || result=1
	SHUNT_CASES=$out scripts/gotest.sh -run '^TestDifferential$' ./director/xdp || result=1
	if [ "$result" = 0 ]; then
		rm -rf "$out"
	else
		printf 'the cases are kept: SHUNT_CASES=%s go test -run "^TestDifferential$" ./director/xdp; shrunk ones for testdata/differential are %s/failed-*\n' "$out" "$out"
	fi
	return "$result"
}

# Both architectures; what is shipped is static.
build() {
	GOARCH=arm64 CGO_ENABLED=0 go build ./... || return
	make -s build || return
	for binary in bin/shuntd bin/shunt; do
		if readelf --program-headers --wide "$binary" | grep -q INTERP; then
			echo "$binary is not static" >&2
			return 1
		fi
	done
}

[ $# -gt 0 ] || set -- "${all[@]}"
summary=() failed=0
for step in "$@"; do
	printf '== %s\n' "$step"
	start=$SECONDS result=ok
	run "$step" || result=FAILED failed=1
	summary+=("$(printf '%-14s %-6s %4d s' "$step" "$result" $((SECONDS - start)))")
	[ "$step $result" != "setup FAILED" ] || break # nothing works without the tools
done
printf '== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
