# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# The demo's dealings with the cluster: which one, what is installed, what is removed.

embedded=true

k() {
	kubectl --namespace "$namespace" "$@"
}

# The embedded cluster, or the one that KUBECONFIG names.
open_cluster() {
	if [[ -n ${KUBECONFIG:-} ]]; then
		embedded=false
		command -v kubectl >/dev/null || die "kubectl is not in PATH"
		command -v helm >/dev/null || die "helm is not in PATH"
		[[ -n ${IMAGE_PREFIX:-} ]] || die "set IMAGE_PREFIX to where the cluster finds the images, as IMAGE_PREFIX=registry.example.com/team/"
		echo "Cluster: $(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}'). This installs two charts in namespace"
		echo "$system, and makes a PersistentVolume, a ClusterTaskTemplate and the namespace $namespace, which it removes."
		echo
	else
		quietly hack/cluster/cluster up
		KUBECONFIG=$(hack/cluster/cluster kubeconfig)
		export KUBECONFIG
		PATH=$(hack/cluster/cluster bindir):$PATH
	fi
	one_demo_at_a_time
	local version
	version=$(kubectl version -o json | sed -n '/serverVersion/,$s/.*"gitVersion": "\(.*\)".*/\1/p')
	stage "cluster $($embedded && echo "embedded (hack/cluster), ")Kubernetes $version"
}

# A second demo on the same cluster would see the first one's graphs. The lock ends with the process that holds it.
one_demo_at_a_time() {
	local server
	server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
	exec {lock}>"/tmp/taskgraph-demo.$(cksum <<<"$server" | cut -d' ' -f1).lock"
	flock -n "$lock" || die "another demo runs on this cluster; wait for it to end"
}

install_operator() {
	if $embedded; then
		quietly make -s image
		stage "operator's image built and loaded"
		quietly hack/install
	else
		quietly hack/install --set "image.repository=${prefix}taskgraph"
	fi
	stage "operator installed with helm"
	quietly make -s plugin
	PATH=$PWD/target/release:$PATH
	stage "kubectl taskgraph built"
}

# An empty namespace of the demo's own; what a killed demo left is removed first.
claim_namespace() {
	local owner
	if owner=$(kubectl get namespace "$namespace" --ignore-not-found -o jsonpath="{.metadata.name}={.metadata.annotations['${owner_key//./\\.}']}") && [[ -n $owner ]]; then
		case ${owner#*=} in
		"$HOSTNAME") remove_namespace && stage "leftovers of an earlier demo removed" ;;
		'') die "namespace $namespace exists and no demo made it: remove or rename it" ;;
		*) die "namespace $namespace belongs to a demo on ${owner#*=}; if none runs there: kubectl delete namespace $namespace" ;;
		esac
	fi
	quietly kubectl create -f - <<-END
		apiVersion: v1
		kind: Namespace
		metadata: {name: $namespace, annotations: {$owner_key: $HOSTNAME}}
	END
}

remove_namespace() {
	quietly kubectl delete namespace "$namespace" --ignore-not-found --timeout=90s
	quietly kubectl delete persistentvolume taskgraph-demo-orders --ignore-not-found --timeout=30s
	quietly kubectl delete clustertasktemplate taskgraph-demo-say --ignore-not-found
}

# The first machine that takes any pod.
worker() {
	kubectl get nodes -o go-template='{{range .items}}{{if not .spec.unschedulable}}{{if not .spec.taints}}{{index .metadata.labels "kubernetes.io/hostname"}}{{"\n"}}{{end}}{{end}}{{end}}' | head -n 1
}

# The end: what was measured, what is removed, what stays, and the exit code.
conclude() {
	heading "Times"
	printf '%s\n' "${timings[@]}"
	if ((failures > 0)); then
		echo
		heading "The operator's last words"
		kubectl --namespace "$system" logs deployment/taskgraph --tail=20 || true
		echo
		echo "${red}$failures of $checks checks failed.${plain} The graphs are still in namespace $namespace; the next demo removes them."
		exit 1
	fi
	if [[ ${KEEP:-} == 1 ]]; then
		echo "The graphs stay in namespace $namespace (KEEP=1); the next demo removes them."
	else
		last=$EPOCHREALTIME
		remove_namespace
		stage "namespace $namespace removed"
	fi
	printf '%6.1f s  in all\n\n' "$(difference "$began" "$EPOCHREALTIME")"
	echo "All $checks checks passed: every task ended as its file says, with these outputs and files."
	if $embedded; then
		echo "The cluster and the operator still run. Try:"
		echo "  export KUBECONFIG=$KUBECONFIG PATH=$(hack/cluster/cluster bindir):$PWD/target/release:\$PATH"
		echo "  kubectl apply -f examples/retries.yaml"
		echo "  kubectl taskgraph tree -w retries"
		echo "To stop the cluster:  make cluster-down"
	else
		echo "To uninstall:  helm uninstall --namespace $system taskgraph taskgraph-crds"
		echo "               kubectl delete crd taskgraphs.taskgraph.dev tasktemplates.taskgraph.dev clustertasktemplates.taskgraph.dev"
	fi
}
