# Whose cluster it is. The claim is the first thing that `up` makes on the machine
# and the last that goes: without it, there is nothing to clean up.
# shellcheck shell=bash

programs=(etcd apiserver controller-manager scheduler containerd kubelet proxy kwok)
declare -A ports=([etcd]='2379 2380' [apiserver]=6443 [controller-manager]=10257 [scheduler]=10259
	[kubelet]='10250 10248' [proxy]='10249 10256')

# One command at a time on this machine. The file stays, as removing a file that
# others may wait for would give two of them "the" lock.
lock() {
	exec 9> "$run.lock"
	flock -n 9 && return
	say 'another cluster command is at work on this machine, waiting for it'
	flock -w 900 9 || die "waited 15 minutes for the lock $run.lock; \`fuser $run.lock\` names who has it"
}

claimed() { sed -n "s/^$1=//p" "$run/claim" 2> /dev/null || true; } # KEY

ours() { [[ $(claimed state) == "$state" ]]; }

must_run() { # NAME
	[[ -e $run/claim ]] || die 'no cluster runs; `cluster up` starts it'
	ours || die "the cluster that runs is that of $(claimed checkout)"
	runs "$1" || die "the cluster's $1 is dead; \`cluster up\` repairs it"
}

# setting NAME DEFAULT: from the environment, or as our cluster has it by now.
setting() {
	local was=
	! ours || was=$(claimed "$1")
	echo "${!1:-${was:-$2}}"
}

any_runs() {
	local name
	for name in "${programs[@]}"; do
		runs "$name" && return
	done
	return 1
}

refuse_foreign() {
	[[ ! -e $run/claim ]] || ours || [[ ${CLUSTER_TAKEOVER:-} == 1 ]] || ! any_runs ||
		die "the cluster of the checkout $(claimed checkout) runs on this machine, since $(claimed since)
  (its state: $(claimed state)). There can be only one.
  Stop it with \`make cluster-down\` there, or set CLUSTER_TAKEOVER=1 to stop it from here."
}

# settle: afterwards the machine has no cluster, or our own in a state that can be
# built upon.
settle() {
	refuse_foreign
	if [[ ! -e $run/claim ]]; then
		# a copied checkout brings the data of a cluster that is not its own
		wipe "$state"
	elif ! ours; then
		if any_runs; then
			say "stopping the cluster of $(claimed checkout) (CLUSTER_TAKEOVER=1)"
		else
			say "the cluster of $(claimed checkout) (since $(claimed since)) is dead; cleaning up its remains"
		fi
		wipe "$(claimed state)"
		wipe "$state"
	elif [[ $(claimed boot) != "$boot_id" ]]; then
		# etcd runs without fsync: after a reboot, nothing is sure of its data
		say 'the machine was rebooted, starting from a clean state'
		wipe "$state"
	elif [[ $(claimed instance) != "$(cat "$state/instance" 2> /dev/null)" ]]; then
		say "the data below $state is gone, starting from a clean state"
		wipe "$state"
	elif ! ip link show "$bridge" &> /dev/null && [[ -e $run/kubelet.pid ]]; then
		say "the bridge $bridge is gone and with it the pods' network, starting from a clean state"
		wipe "$state"
	elif [[ -n $(strays "$state") ]]; then
		say 'programs run that no pid file knows, starting from a clean state'
		wipe "$state"
	fi
}

stake_claim() {
	mkdir -p "$run" "$data" "$log" "$images"
	local instance since
	since=$(claimed since) instance=$(claimed instance)
	[[ -n $instance ]] || instance=$EPOCHREALTIME since=$(date '+%F %T')
	# renamed into place, as a claim of which half is written would be nobody's
	cat > "$run/claim.new" <<-END
		checkout=$checkout
		state=$state
		since=$since
		boot=$boot_id
		instance=$instance
		KCM_QPS=$kcm_qps
		KCM_JOB_SYNCS=$kcm_job_syncs
		CLUSTER_AUDIT=$audit
	END
	mv "$run/claim.new" "$run/claim"
	echo "$instance" > "$state/instance"
}

read_settings() {
	kcm_qps=$(setting KCM_QPS 5000) kcm_job_syncs=$(setting KCM_JOB_SYNCS 50) audit=$(setting CLUSTER_AUDIT 0)
	[[ $kcm_qps =~ ^[1-9][0-9]*$ && $kcm_job_syncs =~ ^[1-9][0-9]*$ ]] || die 'KCM_QPS and KCM_JOB_SYNCS must be whole numbers from 1'
	[[ $audit == [01] ]] || die 'CLUSTER_AUDIT must be 0 or 1'
}

# What we need must not be taken by a stranger: said before anything is started.
check_free() {
	local name port user taken=
	for name in "${!ports[@]}"; do
		! runs "$name" || continue
		for port in ${ports[$name]}; do
			user=$(ss -Hltnp "sport = :$port" | sed 's/.*users:((//; s/^"\([^"]*\)",pid=\([0-9]*\).*/\1 (pid \2)/; q')
			[[ -z $user ]] || taken+=$'\n'"  port $port, for $name: $user"
		done
	done
	[[ -z $taken ]] || die "ports that the cluster needs are taken:$taken"
	user=$(ip -o -4 address show to "$pod_cidr" | awk -v b="$bridge" '$2 != b {print $2}')
	[[ -z $user ]] || die "the network $pod_cidr is in use on $user"
}
