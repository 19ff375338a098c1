#!/bin/sh
# Generates a package's Go files and objects again in a temporary directory and compares them with the committed ones, byte
# for byte: of package bpf, or of the folder that is named. Only Debian 12's compiler makes the same bytes: apt-get install clang-14 llvm-14 libbpf-dev.
set -eu
cd "${1:-$(dirname "$0")}"

for tool in clang-14 llvm-strip-14; do
	command -v "$tool" >/dev/null || {
		echo "bpf: $tool is missing; apt-get install clang-14 llvm-14 libbpf-dev" >&2
		exit 1
	}
done

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
KIT_BPF_OUT=$out go generate .

status=0
for file in ./*_bpfe[lb].go ./*_bpfe[lb].o; do
	cmp "$file" "$out/$file" || status=1
done
[ $status -eq 0 ] || echo "bpf: the committed files of $PWD are not what their source gives; run go generate there and commit" >&2
exit $status
