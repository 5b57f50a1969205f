# Images, without a registry: buildah builds them, archives carry them.
# shellcheck shell=bash

# vfs and chroot ask the least of the machine: no overlay file system, no runtime.
in_store() {
	local command=$1
	shift
	buildah --storage-driver vfs --root "$images/store" --runroot "$images/run" "$command" "$@"
}

in_containerd() { ctr --address "$socket" --namespace k8s.io "$@"; }

# build_image TAG DIR [OPTION...]: prints the archive's path. Steps that were
# done before come from the store; the fixed time makes equal content equal images.
build_image() {
	local tag=$1 dir=$2 id archive
	shift 2
	mkdir -p "$images"
	# one at a time, since pruning would take an unfinished build's layers away
	exec 7> "$images/lock"
	flock 7
	archive=$images/$(archive_name "$tag").tar
	id=$(in_store bud --quiet --layers --timestamp 0 --isolation chroot --tag "$tag" "$@" "$dir")
	if [[ ! -e $archive || $(cat "$archive.id" 2> /dev/null) != "$id $tag" ]]; then
		rm -f "$archive.id" "$archive.new"
		in_store push --quiet "$id" "docker-archive:$archive.new:$tag" > /dev/null
		mv "$archive.new" "$archive"
		echo "$id $tag" > "$archive.id"
		# else every build of a program would stay in the store for ever
		in_store rmi --prune > /dev/null || true
	fi
	exec 7>&-
	echo "$archive"
}

# archive_name TAG: localhost/taskgraph:dev becomes taskgraph-dev
archive_name() {
	local name=${1#localhost/}
	echo "${name//[\/:]/-}"
}

# The images that everything else stands on: busybox with its applets (sh, awk,
# wc, sleep, ...), and the one that holds a pod's namespaces, which only sleeps.
base_recipe() {
	cat <<-'END'
		FROM scratch
		COPY busybox /bin/busybox
		RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install /bin && mkdir -p /etc && mkdir -m 1777 /tmp && \
		    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > /etc/passwd && \
		    printf 'root:x:0:\nnobody:x:65534:\n' > /etc/group"]
		ENV PATH=/bin
		CMD ["sh"]
	END
}

build_base_images() {
	local dir id
	id=$({
		base_recipe
		cat "$(command -v busybox)"
	} | sha256sum)
	[[ ! -e $images/busybox-1.tar || ! -e $images/pause-1.tar || $(cat "$images/base" 2> /dev/null) != "$id" ]] || return 0
	dir=$(mktemp -d)
	cp "$(command -v busybox)" "$dir/busybox"
	base_recipe > "$dir/busybox.containerfile"
	printf 'FROM localhost/busybox:1\nENTRYPOINT ["/bin/sleep", "2147483647"]\n' > "$dir/pause.containerfile"
	build_image localhost/busybox:1 "$dir" -f "$dir/busybox.containerfile" > /dev/null
	build_image localhost/pause:1 "$dir" -f "$dir/pause.containerfile" > /dev/null
	rm -r "$dir"
	echo "$id" > "$images/base"
}

load_base_images() {
	local name
	! cmp -s "$images/base" "$run/base" || return 0
	for name in busybox pause; do
		in_containerd images import "$images/$name-1.tar" > /dev/null
	done
	cp "$images/base" "$run/base"
}

image() {
	[[ $# -ge 2 && -d $2 ]] || die 'usage: cluster image TAG DIR [-f CONTAINERFILE]'
	need_root
	install_deps
	build_base_images
	local archive
	archive=$(build_image "$@")
	if ours && runs containerd; then
		in_containerd images import "$archive" > /dev/null
	else
		say "no cluster of this checkout runs, so $1 was not loaded"
	fi
	echo "$archive"
}

load() {
	need_root
	[[ -r $1 ]] || die "no such file: $1"
	must_run containerd
	in_containerd images import "$1" > /dev/null
}
