# Fake nodes, for more pods than a machine can run.
# shellcheck shell=bash

# kwok does nothing of its own accord: the stages tell it how to make a node
# ready, a pod run, and a pod that a Job owns complete.
start_kwok() {
	local stage
	for stage in "${kwok_stages[@]}"; do
		cat "$bin/../kwok-stages/${stage##*/}.yaml"
		echo ---
	done | config kwok "$data/kwok.yaml"
	start kwok "$bin/kwok" --kubeconfig "$data/pki/admin.conf" --config "$data/kwok.yaml" \
		--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake
}

fake_nodes() {
	[[ $1 =~ ^[0-9]+$ ]] || die 'usage: cluster kwok N'
	need_root
	bin=$(bindir)
	lock
	must_run apiserver
	start_kwok
	local i
	for ((i = 0; i < $1; i++)); do
		cat <<-END
			apiVersion: v1
			kind: Node
			metadata:
			  name: kwok-$i
			  annotations: {kwok.x-k8s.io/node: fake}
			  labels: {type: kwok, kubernetes.io/hostname: kwok-$i, kubernetes.io/os: linux}
			spec: {taints: [{key: kwok, value: fake, effect: NoSchedule}]}
			status:
			  capacity: &resources {cpu: "320", memory: 2560Gi, pods: "10000"}
			  allocatable: *resources
			---
		END
	done | kubectl apply -f - > /dev/null
	kubectl wait --for=condition=Ready node -l type=kwok --timeout=60s > /dev/null || die "the fake nodes do not get ready; see $log/kwok.log"
}
