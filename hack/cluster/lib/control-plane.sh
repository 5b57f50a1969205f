# Keys, etcd, API server, controller manager, scheduler.
# shellcheck shell=bash

kubectl() { "$bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

# certificate NAME SUBJECT [ALTERNATIVE NAMES]: elliptic curves, as RSA takes seconds
certificate() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2> /dev/null
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 365 \
		-extfile <(echo "subjectAltName=${3:-DNS:$1}") 2> /dev/null
}

# client_config NAME: self-contained, so that it works from anywhere
client_config() {
	cat <<-END
		apiVersion: v1
		kind: Config
		clusters:
		- name: taskgraph
		  cluster:
		    server: https://127.0.0.1:6443
		    certificate-authority-data: $(base64 -w 0 ca.crt)
		users:
		- name: $1
		  user:
		    client-certificate-data: $(base64 -w 0 "$1.crt")
		    client-key-data: $(base64 -w 0 "$1.key")
		contexts:
		- name: taskgraph
		  context: {cluster: taskgraph, user: $1}
		current-context: taskgraph
	END
}

make_keys() {
	if [[ ! -d $data/pki ]]; then
		rm -rf "$data/pki.new"
		mkdir -m 700 "$data/pki.new"
		(
			cd "$data/pki.new" || exit
			openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 365 -subj /CN=taskgraph-cluster 2> /dev/null
			# RSA, the one kind of token signature that every client library can check
			openssl genrsa -out sa.key 2048 2> /dev/null
			openssl rsa -in sa.key -pubout -out sa.pub 2> /dev/null
			certificate apiserver /CN=kube-apiserver \
				"IP:127.0.0.1,IP:$node_ip,IP:$service_ip,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
			certificate kubelet "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$node_ip"
			certificate admin /O=system:masters/CN=admin
			certificate controller-manager /CN=system:kube-controller-manager
			certificate scheduler /CN=system:kube-scheduler
			certificate proxy /CN=system:kube-proxy
			for name in kubelet admin controller-manager scheduler proxy; do
				client_config "$name" > "$name.conf"
			done
		)
		# all or none: an `up` that is killed here begins again
		mv "$data/pki.new" "$data/pki"
	fi
	if ! cmp -s "$data/pki/admin.conf" "$kubeconfig"; then
		install -m 600 "$data/pki/admin.conf" "$kubeconfig.new"
		# with sudo, tests still run as the user
		chown "${SUDO_UID:-0}:${SUDO_GID:-0}" "$kubeconfig.new"
		mv "$kubeconfig.new" "$kubeconfig"
	fi
}

start_etcd() {
	# no fsync: losing the data in a power cut is what this cluster can afford
	start etcd "$bin/etcd" --data-dir "$data/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster default=http://127.0.0.1:2380
}

start_apiserver() {
	local pki=$data/pki auditing=()
	if [[ $audit == 1 ]]; then
		config apiserver "$data/audit.yaml" <<-'END'
			apiVersion: audit.k8s.io/v1
			kind: Policy
			omitStages: [RequestReceived]
			rules:
			- level: Metadata
			  resources:
			  - {group: "", resources: [pods, pods/*]}
			  - {group: batch, resources: [jobs, jobs/*]}
			  - {group: taskgraph.dev}
			- level: None
		END
		auditing=(--audit-policy-file="$data/audit.yaml" --audit-log-path="$log/audit.log" --audit-log-maxsize=1000 --audit-log-maxbackup=1)
	fi
	start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --advertise-address="$node_ip" \
		--service-cluster-ip-range="$service_cidr" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
		--allow-privileged=true --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
		--service-account-issuer=https://kubernetes.default.svc \
		--kubelet-certificate-authority="$pki/ca.crt" --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
		--kubelet-preferred-address-types=InternalIP "${auditing[@]}"
}

# Claims without a class get a folder of this machine, which Kubernetes' own
# provisioner for one-node clusters makes below /tmp/hostpath_pv.
make_storage_class() {
	kubectl apply -f - > /dev/null <<-'END'
		apiVersion: storage.k8s.io/v1
		kind: StorageClass
		metadata:
		  name: hostpath
		  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
		provisioner: kubernetes.io/host-path
		reclaimPolicy: Delete
		volumeBindingMode: Immediate
	END
}

# Alone on the machine, they need no leader election. Their own limits of API
# calls a second (20 and 50) would be what every measurement of ours measures.
start_controllers() {
	start controller-manager "$bin/kube-controller-manager" --kubeconfig="$data/pki/controller-manager.conf" --leader-elect=false \
		--bind-address=127.0.0.1 --service-account-private-key-file="$data/pki/sa.key" --root-ca-file="$data/pki/ca.crt" \
		--use-service-account-credentials=true --enable-hostpath-provisioner=true \
		--kube-api-qps="$kcm_qps" --kube-api-burst=$((2 * kcm_qps)) --concurrent-job-syncs="$kcm_job_syncs"
	start scheduler "$bin/kube-scheduler" --kubeconfig="$data/pki/scheduler.conf" --leader-elect=false \
		--bind-address=127.0.0.1 --kube-api-qps=5000 --kube-api-burst=10000
}
