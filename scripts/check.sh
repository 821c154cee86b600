#!/usr/bin/env bash
# The gate: what make test and CI run, step by step, each with its time. It runs
# all steps, so that one run shows everything that is wrong. Given names of steps,
# it runs those only.
#
# Where unit is followed by guest, the two run beside each other: an emulated CPU
# keeps one core busy. What guest says is kept, and printed when it is its turn.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export REQUIRE_PRIVILEGED=1 # what wants root and has it not is a failure

all=(setup commits format lint generated build unit guest root ipvs differential instructions)

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
		# The emulated CPU has the right of way: it cannot use more than one.
		REQUIRE_PRIVILEGED=0 nice setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
			scripts/gotest.sh -race ./...
		;;
	root)
		# Programs loaded, namespaces, daemon and CLI.
		local packages
		mapfile -t packages < <(go list ./... | grep -v -e '/scripts/guest$' -e '/directortest/ipvs$')
		# The longest first: two packages run at a time.
		scripts/gotest.sh ./cmd/shuntd/labtest ./bpf ./director/xdp "${packages[@]}"
		;;
	guest)
		local slow='^Test(Conformance|Race|SchedulersRace|CarryRace|CarryDropsNothing|Stress|FloodsAreMeasured'
		slow+='|ResizeOutlivesCrashes|UpgradeFromLayout4|OtherVersionsAreRefused|TemplateComesOverForANewConnection'
		slow+='|ReplyKeyOfAnOldConnectionIsTaken|OpenRefuses|OpenAfterInterruptedStart|OpenKeepsConnections'
		slow+='|OpenAdoptsWhatIsPinned|ConnectionTrafficIsAdopted|StartResizes|ResizeGoesOnAfterRestart'
		slow+='|ResizeCountsTheLost|RemovedPinsAreRepaired|StartRepairs|StartRepairsWideServices'
		slow+='|WideServicesAsTheRule|ResizeKeepsEntries|TablesFollowTheModel|EverySchedulerHasRoomForAllServers)$'
		# The oldest supported kernel; its IPVS beside the fast path. Without
		# what the step root runs and is slow on an emulated CPU, which is one:
		# races, and what loads the programs again and again.
		SHUNT_GUEST=1 CGO_ENABLED=0 scripts/gotest.sh -timeout 25m -parallel 24 -skip "$slow" \
			-exec "$PWD/scripts/guest/run.sh -t 1500 -I" ./scripts/guest ./bpf/... ./director/xdp &&
			make -s build &&
			SHUNT_GUEST=1 SHUNT_BIN=/bin CGO_ENABLED=0 scripts/gotest.sh -run '^Test(Migration|KernelUnwraps)' \
				-exec "$PWD/scripts/guest/run.sh -I -k 'nf_tables sit' -b '$PWD/bin/shuntd $PWD/bin/shunt nft ip'" ./cmd/shuntd/labtest
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
	for binary in bin/shuntd bin/shunt bin/shunt-agent; do
		if readelf --program-headers --wide "$binary" | grep -q INTERP; then
			echo "$binary is not static" >&2
			return 1
		fi
	done
}

# The step that runs beside others, if any: its name, process group and folder.
beside="" group="" kept=""

# Starts a step beside those that come next. It has a process group of its own, so
# that stop ends whatever it has started.
start_beside() {
	kept=$(mktemp -d "${TMPDIR:-/tmp}/shunt-check.XXXXXX") || return
	beside=$1
	set -m
	(
		start=$SECONDS
		run "$1" >"$kept/output" 2>&1
		echo "$? $((SECONDS - start))" >"$kept/result"
	) </dev/null &
	set +m
	group=$!
}

# Waits for that step, prints what it said, and leaves its time and result to the caller.
finish_beside() {
	wait "$group"
	cat "$kept/output"
	read -r status took <"$kept/result" || status=1
	rm -rf "$kept"
	beside="" group="" kept=""
}

# shellcheck disable=SC2317 # called by the trap
stop() {
	[ -z "$group" ] || kill -TERM -- "-$group" 2>/dev/null
	[ -z "$kept" ] || rm -rf "$kept"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Whether two steps may run at a time: cores, and memory for what both build and run.
has_room() {
	[ "$(nproc)" -ge 2 ] && [ "$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)" -ge 6144 ]
}

[ $# -gt 0 ] || set -- "${all[@]}"
summary=() failed=0
while [ $# -gt 0 ]; do
	step=$1 next=${2:-}
	shift
	printf '== %s\n' "$step"
	if [ "$step $next" = "unit guest" ] && has_room; then
		start_beside guest
	fi
	start=$SECONDS result=ok status=0 took=""
	if [ "$step" = "$beside" ]; then
		finish_beside
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
