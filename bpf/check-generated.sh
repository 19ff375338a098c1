#!/bin/sh
# Generates the Go files and objects again in a temporary directory and compares them with the committed ones, byte
# for byte. Only Debian 12's compiler makes the same bytes: apt-get install clang-14 llvm-14 libbpf-dev.
set -eu
cd "$(dirname "$0")"

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
for file in kit_bpfel.go kit_bpfel.o kit_bpfeb.go kit_bpfeb.o; do
	cmp "$file" "$out/$file" || status=1
done
[ $status -eq 0 ] || echo "bpf: the committed files are not what kit.bpf.c gives; run go generate ./bpf and commit" >&2
exit $status
