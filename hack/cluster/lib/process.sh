# Messages, and the programs that run in the background.
# shellcheck shell=bash

say() { printf 'cluster: %s\n' "$*" >&2; }

die() {
	say "error: $*"
	exit 1
}

need_root() {
	[[ $EUID == 0 ]] || die "\`$command\` needs root: it makes network devices, mounts and cgroups"
}

read -r boot_id < /proc/sys/kernel/random/boot_id
read -r _ memory_kib _ < /proc/meminfo

# birth PID: the clock tick at which a process started; fails if there is none.
birth() {
	local stat
	{ stat=$(< "/proc/$1/stat"); } 2> /dev/null || return 1
	# the second field is the name in parentheses, in which anything may stand
	read -ra stat <<< "${stat##*) }"
	# a zombie is as dead as dead
	[[ ${stat[0]} != [ZX] ]] && echo "${stat[19]}"
}

# pid_of NAME: its pid; fails if it does not run. A pid alone proves nothing: it
# may have been given to another program, or the pid file is from before a reboot.
pid_of() {
	local pid tick boot
	read -r pid tick boot 2> /dev/null < "$run/$1.pid" || return 1
	[[ $boot == "$boot_id" && $tick == "$(birth "$pid")" ]] && echo "$pid"
}

runs() { pid_of "$1" > /dev/null; }

# start NAME PROGRAM ARGUMENT...: a program that runs is left alone, unless the
# command line that is wanted now differs from the one that it was given.
start() {
	local name=$1 pid
	shift
	if pid=$(pid_of "$name"); then
		! cmp -s "/proc/$pid/cmdline" <(printf '%s\0' "$@") || return 0
		say "$name: flags or version have changed, restarting it"
		stop "$name"
	elif [[ -e $run/$name.pid ]]; then
		say "$name is dead, starting it again"
		rm -f "$run/$name.pid"
	fi
	(
		# Nothing of the caller may live on in a daemon: neither a CI runner's
		# pipe, for whose end it would wait for ever, nor the lock.
		for fd in "/proc/$BASHPID/fd/"*; do
			fd=${fd##*/}
			[[ $fd -le 2 ]] || eval "exec $fd>&-"
		done
		cd /
		# written here, so that no moment exists in which a killed `up` leaves
		# behind a program that no file tells of
		self=$BASHPID
		echo "$self $(birth "$self") $boot_id" > "$run/$name.pid"
		# most are Go programs that share few cores: collecting garbage a third as
		# often leaves a tenth more for the work, while there is memory for it
		export GOGC=${GOGC:-300} GOMEMLIMIT=${GOMEMLIMIT:-$((memory_kib / 4))KiB}
		exec setsid "$@" < /dev/null >> "$log/$name.log" 2>&1
	) &
	until [[ -s $run/$name.pid ]]; do sleep 0.01; done
}

# stop NAME [kill]: asks it to end, and kills it where that takes too long.
stop() {
	local pid
	if pid=$(pid_of "$1"); then
		if [[ ${2:-} != kill ]]; then
			kill "$pid" 2> /dev/null || true
			await 5 gone "$1" || true
		fi
		! runs "$1" || kill -KILL "$pid" 2> /dev/null || true
		await 5 gone "$1" || die "$1 (pid $pid) cannot be killed"
	fi
	rm -f "$run/$1.pid"
}

gone() { ! runs "$1"; }

# strays STATE: our programs that work on its data though no pid file knows them,
# as when somebody emptied /run.
strays() {
	local path pid name known=
	# shellcheck disable=SC2001 # no shorter without
	path=$(sed 's/[][\.*^$(){}?+|]/\\&/g' <<< "$1/data/")
	for name in "${programs[@]}"; do
		known+=" $(pid_of "$name" || true) "
	done
	for pid in $(pgrep -f "^[^ ]*(etcd|kube-[a-z-]*|kubelet|kwok|containerd) .*$path" || true); do
		[[ $known == *" $pid "* ]] || echo "$pid"
	done
}

# await SECONDS COMMAND...: repeats it until it succeeds; fails when time is up.
await() {
	local until=$((SECONDS + $1))
	shift
	until "$@" &> /dev/null; do
		((SECONDS < until)) || return 1
		sleep 0.1
	done
}

# listens ADDRESS PORT. A ClusterIP that nobody serves swallows packets.
listens() { timeout 1 bash -c ': < "/dev/tcp/$1/$2"' - "$1" "$2" 2> /dev/null; }

# config NAME FILE: writes its input there; NAME must read it again if it differs.
config() {
	local text
	text=$(cat)
	[[ -e $2 && $(< "$2") == "$text" ]] && return
	printf '%s\n' "$text" > "$2"
	if runs "$1"; then
		say "$1: its configuration has changed, restarting it"
		stop "$1"
	fi
}
