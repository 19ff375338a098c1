package bpf

// Byte for byte the same output needs the same compiler: Debian 12's clang-14, llvm-14 and libbpf-dev.
// KIT_BPF_OUT is where check-generated.sh wants a second copy; without it the files go here.
// The kernels that kit runs on all know the v3 instruction set (5.1).

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -go-package bpf -output-stem kit -output-dir=$KIT_BPF_OUT bpf kit.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Iheaders
