# shellcheck shell=bash
# Programs of the Rust world that are not needed to build or test: pinned, built once, cached.

# rust_tool CRATE VERSION: builds it if it is not there, and prints the folder of its program.
rust_tool() {
	local root=${XDG_CACHE_HOME:-${HOME:?must be set, or XDG_CACHE_HOME}/.cache}/taskgraph/rust/$1-$2
	if [[ ! -x $root/bin/$1 ]]; then
		echo "building $1 $2 (once: some minutes)" >&2
		# its own lock file: what was tested by its authors. A folder of its own: nothing of it lands in target/
		CARGO_TARGET_DIR=$root/target cargo install --quiet --locked --root "$root" "$1" --version "=$2" >&2
		rm -rf "$root/target"
	fi
	echo "$root/bin"
}
