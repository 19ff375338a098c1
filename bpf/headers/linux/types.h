/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Stands in for the kernel's <linux/types.h>, whose <asm/types.h> exists only
 * for the build host's own architecture and brings that host's byte order
 * along. These are all the names that <linux/bpf.h> and libbpf's helpers use.
 */
#ifndef _LINUX_TYPES_H
#define _LINUX_TYPES_H

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;

typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;

#define __aligned_u64 __u64 __attribute__((aligned(8)))

#endif /* _LINUX_TYPES_H */
