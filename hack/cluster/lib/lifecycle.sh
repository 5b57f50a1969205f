# up, down, status, logs.
# shellcheck shell=bash

up() {
	need_root
	# the kubelet's socket lies 40 bytes below, and must stay shorter than 108
	((${#state} <= 60)) || die "the path $state is too long; set CLUSTER_STATE to a shorter one"
	refuse_foreign
	install_deps
	build
	bin=$(bindir)
	lock
	read_settings
	local name fresh=yes
	! ours || fresh=
	settle
	check_free
	stake_claim
	attempt converge
	if [[ $result != 0 ]]; then
		# something hangs, has lost its socket, or was only late: the data may still be sound
		say 'it does not work yet, restarting all programs'
		for name in "${programs[@]}"; do
			[[ ! -e $run/$name.pid ]] || stop "$name" kill
		done
		attempt converge
		if [[ $result != 0 && -z $fresh ]]; then
			say 'nor does it now, starting from a clean state'
			wipe "$state"
			stake_claim
			attempt converge
		fi
	fi
	[[ $result == 0 ]] || die "the cluster does not start; its logs are in $log (\`cluster logs\` shows their ends)"
	echo "$kubeconfig"
}

# attempt COMMAND...: runs it until its first error, and sets $result. Not to be
# called in a condition, for there bash would go on after errors.
attempt() {
	set +e
	(
		set -e
		"$@"
	)
	result=$?
	set -e
}

# converge: every step does only what is not done yet, so that the same way leads
# from nothing, from half a start and from a dead program to a cluster that works.
converge() {
	make_bridge
	make_keys
	start_etcd
	start_apiserver
	start_containerd
	# while the API server starts
	build_base_images
	ready 30 'containerd answers' in_containerd version
	load_base_images
	ready 60 'the API server is ready' kubectl get --raw /readyz
	start_kubelet
	start_controllers
	start_proxy
	[[ ! -e $data/kwok.yaml ]] || start_kwok
	make_storage_class
	ready 60 'the default service accounts exist' service_accounts
	ready 60 'all programs listen' all_listen
	ready 30 'the kubernetes service answers' listens "$service_ip" 443
	ready 60 'the node is ready' node_ready
}

ready() { # SECONDS WHAT COMMAND...
	local seconds=$1 what=$2
	shift 2
	await "$seconds" "$@" || {
		say "waited $seconds seconds in vain until $what"
		return 1
	}
}

service_accounts() {
	[[ $(kubectl get serviceaccounts --all-namespaces --field-selector metadata.name=default --output name | wc -l) -ge 4 ]]
}

# A dead node keeps its last condition for a while: so ask the kubelet as well,
# by the way that `kubectl logs` takes.
node_ready() {
	kubectl get --raw "/api/v1/nodes/$node/proxy/healthz" && kubectl wait --for=condition=Ready "node/$node" --timeout=5s
}

all_listen() {
	local name port
	for name in "${!ports[@]}"; do
		runs "$name" || return 1
		for port in ${ports[$name]}; do
			listens 127.0.0.1 "$port" || return 1
		done
	done
}

down() {
	need_root
	lock
	if [[ ! -e $run/claim ]] || ours; then
		wipe "$state"
	else
		say "the cluster on this machine belongs to $(claimed checkout), it goes on; removing only our own files"
	fi
	rm -rf --one-file-system "$data" "$log" "$images" "$state/instance" "$kubeconfig"
	[[ ! -d $state ]] || rmdir --ignore-fail-on-non-empty "$state"
}

# wipe STATE: ends all programs and containers and removes what they made. Logs
# and images stay. Nothing is asked to end, for nothing of it will be kept.
wipe() {
	local name
	strays "$1" | xargs -r kill -KILL
	if [[ -e $run/claim ]] || ip link show "$bridge" &> /dev/null; then
		for name in "${programs[@]}"; do
			stop "$name" kill
		done
		kill_containers
		remove_node "$1/data"
	fi
	# not into a mount that is still there, whatever it may be
	rm -rf --one-file-system "$1/data" "$1/instance" "$1/kubeconfig"
	# the kubelet's links to the logs that are gone now
	[[ ! -d /var/log/containers ]] || find /var/log/containers -xtype l -delete
	rm -rf --one-file-system "$run"
}

status() {
	if [[ ! -e $run/claim ]]; then
		echo 'no cluster runs on this machine'
		return 1
	fi
	local name pid whose='this checkout' healthy=yes
	ours || whose='another checkout'
	echo "cluster of $(claimed checkout) ($whose), since $(claimed since)"
	echo "kubeconfig: $(claimed state)/kubeconfig"
	for name in "${programs[@]}"; do
		if pid=$(pid_of "$name"); then
			printf '%-20s pid %-8s since %s\n' "$name" "$pid" "$(ps -o lstart= -p "$pid")"
		elif [[ $name != kwok || -e $run/kwok.pid ]]; then
			printf '%-20s dead\n' "$name"
			healthy=
		fi
	done
	ours || return 1
	if [[ -z $healthy ]]; then
		echo 'not healthy: `cluster up` repairs it'
		return 1
	fi
	bin=$(bindir)
	kubectl get nodes && node_ready > /dev/null
}

logs() {
	local names
	names=$(find "$log" -name '*.log' -printf '%f ' 2> /dev/null | sed 's/\.log//g') || true
	[[ -n $names ]] || die "no logs in $log"
	if [[ $# == 0 ]]; then
		tail -n 20 "$log"/*.log
	else
		[[ -e $log/$1.log ]] || die "no log of $1; there are: $names"
		tail -n 200 "$log/$1.log"
	fi
}
