# The node: network, containerd, kubelet, kube-proxy.
# shellcheck shell=bash

# The bridge of the pods carries the node's address: not every kernel has the
# `dummy` device on which it would lie otherwise.
make_bridge() {
	if ! ip link show "$bridge" &> /dev/null; then
		ip link add "$bridge" type bridge
		ip address add "$node_ip/${pod_cidr#*/}" dev "$bridge"
	fi
	ip link set "$bridge" up
	# left as it is by `down`, since by then others may rely on it
	echo 1 > /proc/sys/net/ipv4/ip_forward
}

start_containerd() {
	mkdir -p "$data/cni"
	# Leases and namespaces are kept where `down` finds them, and not in the
	# folders that all users of CNI share.
	config containerd "$data/cni/10-taskgraph.conflist" <<-END
		{
		  "cniVersion": "1.0.0",
		  "name": "taskgraph",
		  "plugins": [{
		    "type": "bridge", "bridge": "$bridge", "isGateway": true, "hairpinMode": true,
		    "ipam": {
		      "type": "host-local", "dataDir": "$run/leases",
		      "ranges": [[{"subnet": "$pod_cidr", "gateway": "$node_ip"}]], "routes": [{"dst": "0.0.0.0/0"}]
		    }
		  }]
		}
	END
	# restrict_oom_score_adj: where CAP_SYS_RESOURCE is missing (as in many CI
	# containers), runc cannot lower a sandbox's score, and the sandbox dies with
	# "can't get final child's PID from pipe: EOF"
	config containerd "$data/containerd.toml" <<-END
		version = 2
		root = "$data/containerd"
		state = "$run/containerd"
		disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
		[grpc]
		  address = "$socket"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$data/containerd/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "localhost/pause:1"
		  restrict_oom_score_adj = true
		  netns_mounts_under_state_dir = true
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      Root = "$run/runc"
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "$(cni_plugins)"
		    conf_dir = "$data/cni"
	END
	start containerd containerd --config "$data/containerd.toml"
}

start_kubelet() {
	# failCgroupV1: Kubernetes is about to refuse cgroup v1, which CI machines still have.
	# localStorageCapacityIsolation: complains for ever where it cannot find its file system's device.
	# imageGC: an image that is removed could not be pulled again; 100 turns it off.
	# evictionHard: by memory only; a full disk is the developer's to see to.
	# makeIPTablesUtilChains: nothing here uses the chains, and `down` would have to remove them.
	# clusterDNS: there is none. Without an entry the kubelet writes two warning events for
	#   each pod; at this address a query is refused at once, where others would time out.
	config kubelet "$data/kubelet.yaml" <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {x509: {clientCAFile: "$data/pki/ca.crt"}, anonymous: {enabled: false}, webhook: {enabled: true}}
		authorization: {mode: Webhook}
		tlsCertFile: "$data/pki/kubelet.crt"
		tlsPrivateKeyFile: "$data/pki/kubelet.key"
		cgroupDriver: cgroupfs
		containerRuntimeEndpoint: "unix://$socket"
		podLogsDir: "$data/pod-logs"
		volumePluginDir: "$data/kubelet/volume-plugins"
		clusterDNS: [$node_ip]
		clusterDomain: cluster.local
		failSwapOn: false
		failCgroupV1: false
		makeIPTablesUtilChains: false
		localStorageCapacityIsolation: false
		imageGCHighThresholdPercent: 100
		imageMinimumGCAge: 24h
		evictionHard: {memory.available: 100Mi}
		maxPods: 200
	END
	start kubelet "$bin/kubelet" --config="$data/kubelet.yaml" --kubeconfig="$data/pki/kubelet.conf" --root-dir="$data/kubelet" \
		--hostname-override="$node" --node-ip="$node_ip"
}

start_proxy() {
	# masquerade-all: pods share a bridge, so an answer would go past the address
	# translation where the kernel does not filter bridged packets.
	# conntrack-max-per-core: 0 leaves the machine's own limit alone.
	start proxy "$bin/kube-proxy" --kubeconfig="$data/pki/proxy.conf" --hostname-override="$node" --proxy-mode=nftables \
		--cluster-cidr="$pod_cidr" --masquerade-all --conntrack-max-per-core=0 \
		--metrics-bind-address=127.0.0.1:10249 --healthz-bind-address=127.0.0.1:10256
}

# End all containers, without the help of containerd, which may be dead.
kill_containers() {
	local left
	for _ in {1..50}; do
		# children of the shims, and those whose shim is gone
		left=$({
			find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2> /dev/null
			pgrep -f "^[^ ]*containerd-shim.* -address $socket" || true
		} | sort -u)
		[[ -n $left ]] || break
		xargs -r kill -KILL <<< "$left" 2> /dev/null || true
		sleep 0.1
	done
	[[ -z $left ]] || say "processes of containers that cannot be killed: ${left//$'\n'/ }"
}

# What the kernel and folders that we share with others still have of the node when
# its programs are dead.
remove_node() { # DATA
	local bundle mount
	for bundle in "$run/containerd/io.containerd.runtime.v2.task/k8s.io/"*; do
		[[ ! -e $bundle/address ]] || rm -f "$(sed 's,^unix://,,' "$bundle/address")"
		rm -f /var/lib/cni/results/*"-${bundle##*/}-"*
	done
	rm -f /var/lib/cni/results/taskgraph-*
	# the folders of volumes, which the controller manager makes there and nowhere else
	rm -rf --one-file-system /tmp/hostpath_pv
	# the kernel writes a space in a path as \040
	awk '{print $2}' /proc/mounts | sort -r | while read -r mount; do
		mount=$(printf '%b' "$mount")
		[[ $mount/ != "$1/"* && $mount/ != "$run/"* ]] || umount --lazy "$mount" || true
	done
	nft delete table ip kube-proxy 2> /dev/null || true
	nft delete table ip6 kube-proxy 2> /dev/null || true
	ip link delete "$bridge" 2> /dev/null || true
	# this one socket the kubelet has there whatever its folder is
	rm -f /var/lib/kubelet/device-plugins/kubelet.sock
	rmdir --parents /var/lib/kubelet/device-plugins 2> /dev/null || true
	find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} \; 2> /dev/null || true
}
