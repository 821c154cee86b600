#!/usr/bin/env bash
# The gate: what make test and CI run, step by step, each with its time. It runs
# all steps, so that one run shows everything that is wrong. Given names of steps,
# it runs those only.
#
# The steps on emulated kernels, which keep one core busy each, run one after the
# other beside unit and root; those not yet begun when these have ended run then, beside
# the others. What they say is kept, and printed when it is their turn.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export REQUIRE_PRIVILEGED=1 # what wants root and has it not is a failure
# As make build has it, so that all but the race detector's tests share what is compiled.
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath"

all=(setup commits format lint generated build unit root guest ipvs differential instructions)
emulated=" guest ipvs differential "

# Answers of one step to another, and what the steps beside others say.
kept=$(mktemp -d "${TMPDIR:-/tmp}/shunt-check.XXXXXX") || exit

run() {
	case $1 in
	setup) scripts/setup.sh ;;
	commits) [ ! -e .git ] || scripts/check-commits.sh ;;
	format) scripts/format.sh check ;;
	lint) scripts/lint.sh ;;
	generated) scripts/check-generated.sh ;;
	build) build ;;
	unit) unit ;;
	root) root ;;
	guest) guest ;;
	ipvs)
		# The kernel's IPVS as data plane; ipvsadm's, keepalived's and
		# ldirectord's languages beside the real programs.
		binaries &&
			SHUNT_BIN=$kept/bin SHUNT_GUEST=uml scripts/gotest.sh -timeout 12m -run '^TestGuest' -exec "$PWD/scripts/guest/uml.sh -t 330" \
				./director/ipvs/... ./director/config/{ipvsadm,keepalived,ldirectord} ./cmd/shunt/ipvsadm ./cmd/shuntd/labtest
		;;
	differential) differential ;;
	instructions)
		# The fast path against the committed baseline, counted by the
		# guest's clock: the same on every machine.
		SHUNT_GUEST=icount scripts/gotest.sh -run Instructions \
			-exec "$PWD/scripts/guest/run.sh -i" ./scripts/guest ./bpf/...
		;;
	*)
		echo "check.sh: unknown step $1; there are: ${all[*]}" >&2
		return 2
		;;
	esac
}

# Without any capability, as on a developer's machine: what wants root is skipped here
# and comes next. For the race detector, but for what that has nothing to find in.
unit() {
	local apart folders result=0
	apart=$(tests_in scripts/without-race.txt .) || return
	mapfile -t folders < <(grep -rlE --include='*_test.go' "^func ${apart:1:-1}\\(" . | xargs -n1 dirname | sort -u)
	# The emulated CPU has the right of way: it cannot use more than one.
	# No test here runs what build has built, which need not be built again.
	local plainly=(env REQUIRE_PRIVILEGED=0 SHUNT_BIN="$PWD/bin" nice setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all)
	CGO_ENABLED=1 SKIPPED_IN=$kept/skipped "${plainly[@]}" scripts/gotest.sh -race -skip "$apart" ./... || result=1
	SKIPPED_IN=$kept/skipped-apart "${plainly[@]}" scripts/gotest.sh -run "$apart" "${folders[@]}" || result=1
	[ "$result" != 0 ] || sort -u "$kept/skipped" "$kept/skipped-apart" >"$kept/privileged"
	return "$result"
}

# Programs loaded, namespaces, daemon and CLI: what unit has skipped; all tests where
# unit has not been run, or has failed.
root() {
	local packages names tests='.'
	if [ -e "$kept/privileged" ]; then
		mapfile -t packages < <(cut -d' ' -f1 "$kept/privileged" | sort -u)
		mapfile -t names < <(cut -d' ' -f2 "$kept/privileged" | sort -u)
		tests=$(any_of "${names[@]}")
	else
		mapfile -t packages < <(go list ./...)
	fi
	mapfile -t packages < <(printf '%s\n' "${packages[@]}" | grep -v -e '/scripts/guest$' -e '/directortest/ipvs$')
	# The longest first: two packages run at a time.
	scripts/gotest.sh -timeout 30m -run "$tests" ./cmd/shuntd/labtest ./director/xdp ./bpf "${packages[@]}"
}

# The pattern of the names.
any_of() (
	IFS='|'
	printf '^(%s)$' "$*"
)

# The oldest supported kernel; its IPVS beside the fast path.
guest() {
	local without these result=0
	without=$(tests_in scripts/guest/left-out.txt bpf) && these=$(tests_in scripts/guest/of-xdp.txt director/xdp) || return
	export SHUNT_GUEST=1
	scripts/gotest.sh -timeout 25m -skip "$without" -exec "$PWD/scripts/guest/run.sh -t 1500 -I" ./scripts/guest ./bpf/... || result=1
	# Cases on the kernel wait most of their time: the others work meanwhile.
	scripts/gotest.sh -timeout 25m -parallel 8 -run "$these" -exec "$PWD/scripts/guest/run.sh -t 1500 -I" ./director/xdp || result=1
	binaries &&
		SHUNT_BIN=/bin scripts/gotest.sh -run '^Test(Migration|KernelUnwraps)' \
			-exec "$PWD/scripts/guest/run.sh -I -k 'nf_tables sit' -b '$kept/bin/shuntd $kept/bin/shunt nft ip'" ./cmd/shuntd/labtest || result=1
	return "$result"
}

# What guests run is in a folder of its own: tests of make install and make package
# write bin/ meanwhile.
binaries() (
	flock 9
	[ -d "$kept/bin" ] || { make -s build && cp -r bin "$kept/bin.next" && mv "$kept/bin.next" "$kept/bin"; }
) 9>"$kept/bin.lock"

# The pattern of the tests that a file names, a line each, which must be in the folder.
tests_in() {
	local names name result=0
	mapfile -t names < <(grep -vE '^(#|$)' "$1")
	for name in "${names[@]}"; do
		if ! grep -rqE --include='*_test.go' "^func Test$name\\(" "$2"; then
			echo "$1: there is no test Test$name in $2" >&2
			result=1
		fi
	done
	any_of "${names[@]/#/Test}"
	return "$result"
}

# Drawn cases on the kernel's IPVS and on the models, then what the kernel answered
# on the fast path. SHUNT_SEED=N draws the same cases again.
differential() {
	export SHUNT_SEED=${SHUNT_SEED:-$((RANDOM * 32768 + RANDOM))}
	printf 'cases drawn from SHUNT_SEED=%s on\n' "$SHUNT_SEED"
	local out result=0
	out=$(mktemp -d "${TMPDIR:-/tmp}/shunt-differential.XXXXXX") || return
	SHUNT_GUEST=uml scripts/gotest.sh -parallel 24 -exec "$PWD/scripts/guest/uml.sh -o $out" \
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
	GOARCH=arm64 go build ./... || return
	make -s build || return
	for binary in bin/shuntd bin/shunt bin/shunt-agent; do
		if readelf --program-headers --wide "$binary" | grep -q INTERP; then
			echo "$binary is not static" >&2
			return 1
		fi
	done
}

# The process group that runs beside others, and its steps.
group="" beside=" "

# Starts steps, one after the other, beside those that come next. They have a process
# group of their own, so that stop ends whatever they have started.
start_beside() {
	beside=" $* "
	set -m
	run_untaken "$@" </dev/null &
	set +m
	group=$!
}

# Runs those of the steps that are not run already, and keeps what they say.
run_untaken() {
	local step start
	for step in "$@"; do
		mkdir "$kept/$step.taken" 2>/dev/null || continue
		start=$SECONDS
		(run "$step") >"$kept/$step.output" 2>&1
		echo "$? $((SECONDS - start))" >"$kept/$step.result.next"
		mv "$kept/$step.result.next" "$kept/$step.result"
	done
}

# Waits for such a step, prints what it said, and leaves its time and result to the caller.
finish_beside() {
	# Nothing else is left to be done meanwhile: the last first, for the others come to it last.
	local steps step
	read -ra steps <<<"$beside"
	for step in $(printf '%s\n' "${steps[@]}" | tac); do
		[ -e "$kept/$1.result" ] || run_untaken "$step"
	done
	while [ ! -e "$kept/$1.result" ] && kill -0 "$group" 2>/dev/null; do
		sleep 1
	done
	cat "$kept/$1.output"
	read -r status took <"$kept/$1.result" || status=1
}

# shellcheck disable=SC2317 # called by the trap
stop() {
	[ -z "$group" ] || kill -TERM -- "-$group" 2>/dev/null
	rm -rf "$kept"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Whether two steps may run at a time: cores, and memory for what both build and run.
has_room() {
	[ "$(nproc)" -ge 2 ] && [ "$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)" -ge 6144 ]
}

# Of the steps, those on emulated kernels.
emulated_of() {
	local step
	for step in "$@"; do
		[[ $emulated != *" $step "* ]] || echo "$step"
	done
}

[ $# -gt 0 ] || set -- "${all[@]}"
summary=() failed=0
while [ $# -gt 0 ]; do
	step=$1
	shift
	printf '== %s\n' "$step"
	case $step in
	unit | root)
		if [ -z "$group" ] && has_room; then
			mapfile -t steps < <(emulated_of "$@")
			[ ${#steps[@]} = 0 ] || start_beside "${steps[@]}"
		fi
		;;
	esac
	start=$SECONDS result=ok status=0 took=""
	if [[ $beside = *" $step "* ]]; then
		finish_beside "$step"
	else
		run "$step" || status=1
	fi
	[ "$status" = 0 ] || result=FAILED failed=1
	summary+=("$(printf '%-14s %-6s %4d s' "$step" "$result" "${took:-$((SECONDS - start))}")")
	[ "$step $result" != "setup FAILED" ] || break # nothing works without the tools
done
printf '== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
