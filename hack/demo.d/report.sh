# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# How the demo speaks: stages with their times, and what came against what was expected.

bold='' red='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
	bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'
fi
failures=0 checks=0 timings=()
began=$EPOCHREALTIME last=$EPOCHREALTIME

title() {
	echo "${bold}taskgraph${plain}: the examples on a real cluster, each checked against what its file says"
	echo
}

heading() { # TEXT
	echo "${bold}$1${plain}"
}

# A stage is over: what it was, and how long it took.
stage() { # TEXT
	local now=$EPOCHREALTIME
	printf '%6.1f s  %s\n' "$(difference "$last" "$now")" "$1"
	last=$now
}

difference() { # FROM TO: seconds
	awk -v from="$1" -v to="$2" 'BEGIN { printf "%.3f", to - from }'
}

# Seconds between two times as Kubernetes writes them.
seconds_between() { # FROM TO
	difference "$(date -d "$1" +%s.%N)" "$(date -d "$2" +%s.%N)"
}

timing() { # WHAT SECONDS
	timings+=("$(printf '%6.1f s  %s' "$2" "$1")")
}

# Compares what came with what was expected; says so only where they differ.
expect() { # WHAT EXPECTED CAME
	checks=$((checks + 1))
	[[ $2 == "$3" ]] || unexpected "$@"
}

unexpected() { # WHAT EXPECTED CAME
	failures=$((failures + 1))
	echo "${red}NOT AS STATED${plain}: $1"
	{ diff <(echo "$2") <(echo "$3") || true; } | sed -n 's/^< /  expected: /p; s/^> /  came:     /p'
	echo
}

die() { # MESSAGE
	echo "${red}demo:${plain} $1" >&2
	exit 1
}

# The demo's lock; see one_demo_at_a_time.
lock=9

# Runs a command whose output matters only if it fails. What it leaves running must not keep the lock.
quietly() { # COMMAND...
	"$@" >"$work/output" 2>&1 {lock}>&- || {
		cat "$work/output" >&2
		die "failed: $*"
	}
}
