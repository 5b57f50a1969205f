# shellcheck shell=bash
# Steps with their times: quiet while all is well, with the output of what failed.
#
# VERBOSE=1 shows all output as it comes.

logs=target/logs
summary=() failures=() failed=0 omitted=0 tests_passed=0 tests_failed=0

die() { # MESSAGE
	echo "$(basename "$0"): $1" >&2
	exit 1
}

# Runs a command as one step. Its output goes to a file, and is shown if it fails.
# A failed step is counted and the next one goes on; `step ... || return` stops.
step() { # NAME COMMAND...
	local name=$1 log began=$SECONDS result=ok
	shift
	log=$logs/$(basename "$0")-${name//[^a-z0-9]/-}.log
	mkdir -p "$logs"
	printf '%-52s' "$name"
	# daemons that a step starts must not keep the lock of one_at_a_time
	if [[ ${VERBOSE:-} == 1 ]]; then
		echo
		{ "$@" 2>&1 | tee "$log"; } {lock}>&- || result=FAILED
	else
		"$@" >"$log" 2>&1 {lock}>&- || result=FAILED
	fi
	local tests words
	tests=$(count_tests "$log")
	# "  12 passed, 0 failed"
	read -r -a words <<<"$tests"
	((tests_passed += ${words[0]:-0}, tests_failed += ${words[2]:-0})) || true
	printf '%6s  %5d s%s\n' "$result" $((SECONDS - began)) "$tests"
	summary+=("$(printf '%-52s%6s  %5d s' "$name" "$result" $((SECONDS - began)))")
	[[ $result == ok ]] && return
	failed=$((failed + 1))
	failures+=("$name" "$log")
	[[ ${VERBOSE:-} == 1 ]] || tail -n 200 "$log" | sed 's/^/    /'
	echo "    (all of it: $log)"
	return 1
}

# How many tests a log tells of, for people.
count_tests() { # LOG
	awk '/^test result:/ { passed += $4; failed += $6 }
		END { if (passed + failed) printf "  %d passed, %d failed\n", passed, failed }' "$1"
}

# What the logs of failed steps say, in a few short lines each.
why() { # NAME LOG ...
	while [[ $# -gt 0 ]]; do
		printf '%s:\n' "$1"
		grep -E -A 2 --no-group-separator 'panicked at|^ *[Ee]rror|FAILED|refused' "$2" | cut -c 1-300 | sed 's/^/  /' | head -n 8 || true
		shift 2
	done
}

# A step that cannot be done, because one before it failed.
skip() { # NAME WHY
	printf '%-52s%s\n' "$1" "not run: $2"
	summary+=("$(printf '%-52s%s' "$1" "not run: $2")")
	failed=$((failed + 1))
}

# A step that cannot be done here, through no fault of what is tested.
omit() { # NAME WHY
	printf '%-52s%s\n' "$1" "left out: $2"
	summary+=("$(printf '%-52s%s' "$1" "left out: $2")")
	omitted=$((omitted + 1))
}

# What came of all steps; the exit code of the script.
conclude() {
	((tests_passed + tests_failed == 0)) || printf '%d passed, %d failed\n' "$tests_passed" "$tests_failed"
	if ((failed > 0)); then
		printf '\n%s\n' "$(basename "$0"):"
		printf '  %s\n' "${summary[@]}"
		# last, for who sees no more than the end
		((${#failures[@]} == 0)) || why "${failures[@]}"
		printf '%d failed (%d s)\n' "$failed" "$SECONDS"
		exit 1
	fi
	((omitted == 0)) || printf '%d left out (above)\n' "$omitted"
	printf '%s: all well (%d s)\n' "$(basename "$0")" "$SECONDS"
}

# Waits until no other run of the same script works in this checkout.
one_at_a_time() {
	local file
	file=target/$(basename "$0").lock
	mkdir -p target
	exec {lock}>>"$file"
	if ! flock -n "$lock"; then
		echo "another make $(basename "$0") runs (pid $(cat "$file")); waiting"
		flock "$lock"
	fi
	echo $$ >"$file"
}
lock=9

need_cargo() {
	command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
	command -v cargo >/dev/null || die "cargo is not in PATH; install Rust with https://rustup.rs"
}

# The cluster's own programs come first, whatever else is in PATH.
use_cluster_programs() {
	hack/cluster/cluster build
	PATH=$(hack/cluster/cluster bindir):$PATH
	export PATH
}
