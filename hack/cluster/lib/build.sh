# Where the programs come from: Debian, and Go modules.
# shellcheck shell=bash

# Asked for by command and not by package: another distribution's containerd.io or
# iproute does as well, and must not be thrown out by apt.
install_deps() {
	local want=(containerd:containerd runc:runc buildah:buildah nft:nftables conntrack:conntrack ip:iproute2
		ss:iproute2 modprobe:kmod openssl:openssl pgrep:procps flock:util-linux umount:mount)
	local missing=() pair
	for pair in "${want[@]}"; do
		command -v "${pair%:*}" > /dev/null || missing+=("${pair#*:}")
	done
	[[ -n $(cni_plugins) ]] || missing+=(containernetworking-plugins)
	# it runs in images that have no libc
	{ command -v busybox && ! ldd "$(command -v busybox)"; } &> /dev/null || missing+=(busybox-static)
	[[ ${#missing[@]} -gt 0 ]] || return 0

	command -v apt-get > /dev/null || die "missing: ${missing[*]} (Debian's names), and there is no apt-get to install them with"
	[[ $EUID == 0 ]] || die "missing: ${missing[*]}; installing them needs root: sudo $here/cluster deps"
	say "installing ${missing[*]}"
	local out
	out=$(apt-get update -qq 2>&1 && DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq -y --no-install-recommends "${missing[@]}" 2>&1) || die "apt-get failed:"$'\n'"$out"
}

cni_plugins() {
	local dir
	for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
		if [[ -x $dir/bridge && -x $dir/host-local ]]; then
			echo "$dir"
			return
		fi
	done
}

pinned() { awk -v m="$2" '$1 == "require" {$1 = $2; $2 = $3} $1 == m && $2 ~ /^v/ {print $2; exit}' "$here/$1/go.mod"; } # DIR MODULE

# Without their version, Kubernetes' programs call themselves v0.0.0-master and
# refuse to work with each other.
kubernetes_flags() {
	local version minor package flags='-s -w'
	version=$(pinned kubernetes k8s.io/kubernetes)
	IFS=. read -r _ minor _ <<< "$version"
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitCommit= -X $package.gitTreeState=clean"
	done
	echo "$flags"
}

# The name, the folder of the go.mod, the package and the linker flags of each program.
recipes() {
	local name flags
	flags=$(kubernetes_flags)
	for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
		echo "$name kubernetes k8s.io/kubernetes/cmd/$name $flags"
	done
	echo "etcd tools go.etcd.io/etcd/server/v3 -s -w"
	echo "kwok tools sigs.k8s.io/kwok/cmd/kwok -s -w"
	echo "helm tools helm.sh/helm/v4/cmd/helm -s -w -X helm.sh/helm/v4/internal/version.version=$(pinned tools helm.sh/helm/v4)"
}

kwok_stages=(node/fast/node-initialize pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete)

# Our own settings only, for what the caller has in his would end up in the
# programs, but not in the name of their folder.
go_build_env=(CGO_ENABLED=0 GOWORK=off GOFLAGS= GOEXPERIMENT= GOAMD64= GOARM64=)
go_build_flags=(-trimpath -buildvcs=false -mod=readonly)

# use_go: puts a Go that is new enough into PATH, or says what is missing.
use_go() {
	local wanted version
	wanted=$(awk '$1 == "go" {print $2}' "$here/tools/go.mod")
	# sudo drops this folder from PATH
	command -v go > /dev/null || PATH=$PATH:/usr/local/go/bin
	command -v go > /dev/null || die "Go $wanted or newer is needed to build the cluster's programs, and there is no \`go\` in PATH (https://go.dev/dl)"
	# from the module's folder, where Go may fetch a newer toolchain by itself if it is allowed to
	go_version=$(cd "$here/tools" && env "${go_build_env[@]}" go env GOVERSION 2>&1) || die "Go $wanted or newer is needed (see $here/tools/go.mod): $go_version"
	version=${go_version#go}
	printf '%s\n%s\n' "$wanted" "${version%% *}" | sort -CV || die "Go $wanted or newer is needed (see $here/tools/go.mod), but $(command -v go) is $go_version"
}

# Prints the folder of a module of which only files are read, having checked that it is the pinned one.
module() { # MODULE VERSION SUM
	local answer
	answer=$(cd / && env "${go_build_env[@]}" go mod download -json "$1@$2")
	[[ $answer == *"\"Sum\": \"$3\""* ]] || die "$1 $2 has not the sum $3 that is pinned"
	sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<< "$answer"
}

cache_dir() {
	use_go
	local hash
	hash=$({
		cat "$here"/{kubernetes,tools}/go.{mod,sum}
		recipes
		echo "${go_build_env[*]} ${go_build_flags[*]} $go_version $(uname -m)"
	} | sha256sum | cut -c 1-16)
	echo "${XDG_CACHE_HOME:-${HOME:?must be set, or XDG_CACHE_HOME}/.cache}/taskgraph/cluster/$hash"
}

bindir() {
	local cache
	cache=$(cache_dir)
	echo "$cache/bin"
}

missing_programs() { # CACHE
	local name rest
	recipes | while read -r name rest; do
		[[ -x $1/bin/$name ]] || echo "$name $rest"
	done
	[[ -d $1/kwok-stages ]] || echo kwok-stages
}

build() {
	local cache todo
	use_go
	cache=$(cache_dir)
	[[ -n $(missing_programs "$cache") ]] || return 0
	mkdir -p "$cache/bin"
	exec 8> "$cache/lock"
	flock -n 8 || {
		say 'another build is under way, waiting for it'
		flock 8
	}
	todo=$(missing_programs "$cache")
	if [[ -n $todo ]]; then
		check_space "$cache"
		say "building the cluster's programs into $cache (all of them: about 10 minutes on 2 cores, one if Go's build cache has them)"
		build_missing "$cache" "$todo"
	fi
	exec 8>&-
}

build_missing() { # CACHE TODO
	local name dir package flags stage module new=$1/new
	rm -rf "$new"
	mkdir -p "$new/kwok-stages"
	while read -r name dir package flags; do
		say "building $name"
		if [[ $name == kwok-stages ]]; then
			module=$(cd "$here/tools" && env "${go_build_env[@]}" go mod download -json sigs.k8s.io/kwok | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
			for stage in "${kwok_stages[@]}"; do
				# Go keeps modules without write permission
				install -m 644 "$module/kustomize/stage/$stage.yaml" "$new/kwok-stages/"
			done
			mv -T "$new/kwok-stages" "$1/kwok-stages"
		else
			(cd "$here/$dir" && env "${go_build_env[@]}" go build "${go_build_flags[@]}" -ldflags "$flags" -o "$new/$name" "$package")
			# only what is complete gets its name
			mv "$new/$name" "$1/bin/$name"
		fi
	done <<< "$2"
	rm -rf "$new"
}

check_space() { # CACHE
	local dir need free
	while read -r need dir; do
		mkdir -p "$dir"
		free=$(df --output=avail -k "$dir" | tail -n 1)
		((free >= need << 20)) || die "building needs about $need GB in $dir, but only $((free >> 20)) GB are free there"
	done <<-END
		8 $(go env GOCACHE)
		3 $(go env GOMODCACHE)
		1 $1
	END
}
