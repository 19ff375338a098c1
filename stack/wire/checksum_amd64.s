#include "textflag.h"

// Both functions add 64-bit lanes without carries. S takes whole lanes, modulo
// 2^64; H takes their high halves alone. What the low halves sum to is then S -
// 2^32*H, because it is less than 2^64, and L + H is the sum of all 32-bit words.
//
// Y0 and Y2 are S, Y1 and Y3 are H, each for every other 32 bytes.

#define ZERO \
	VPXOR Y0, Y0, Y0 \
	VPXOR Y1, Y1, Y1 \
	VPXOR Y2, Y2, Y2 \
	VPXOR Y3, Y3, Y3

#define LOAD128 \
	VMOVDQU (SI), Y4   \
	VMOVDQU 32(SI), Y5 \
	VMOVDQU 64(SI), Y6 \
	VMOVDQU 96(SI), Y7

#define ADD128 \
	VPADDQ Y4, Y0, Y0   \
	VPSRLQ $32, Y4, Y8  \
	VPADDQ Y5, Y2, Y2   \
	VPSRLQ $32, Y5, Y9  \
	VPADDQ Y8, Y1, Y1   \
	VPADDQ Y9, Y3, Y3   \
	VPADDQ Y6, Y0, Y0   \
	VPSRLQ $32, Y6, Y10 \
	VPADDQ Y7, Y2, Y2   \
	VPSRLQ $32, Y7, Y11 \
	VPADDQ Y10, Y1, Y1  \
	VPADDQ Y11, Y3, Y3

#define ADD32 \
	VPADDQ Y4, Y0, Y0  \
	VPSRLQ $32, Y4, Y8 \
	VPADDQ Y8, Y1, Y1

// L + H, the four lanes together, in AX.
#define TOTAL \
	VPADDQ Y2, Y0, Y0         \
	VPADDQ Y3, Y1, Y1         \
	VPSLLQ $32, Y1, Y2        \
	VPSUBQ Y2, Y0, Y0         \
	VPADDQ Y1, Y0, Y0         \
	VEXTRACTI128 $1, Y0, X1   \
	VPADDQ X1, X0, X0         \
	VPSRLDQ $8, X0, X1        \
	VPADDQ X1, X0, X0         \
	VMOVQ X0, AX              \
	VZEROUPPER

// func sumWide(p *byte, n int) uint64
TEXT ·sumWide(SB), NOSPLIT, $0-24
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	ZERO
	SUBQ $128, CX
	JLT  few

many:
	LOAD128
	ADD128
	ADDQ $128, SI
	SUBQ $128, CX
	JGE  many

few:
	ADDQ $96, CX
	JLT  done

next:
	VMOVDQU (SI), Y4
	ADD32
	ADDQ $32, SI
	SUBQ $32, CX
	JGE  next

done:
	TOTAL
	MOVQ AX, ret+16(FP)
	RET

// func copySumWide(dst, src *byte, n int) uint64
TEXT ·copySumWide(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	ZERO
	SUBQ $128, CX
	JLT  few

many:
	LOAD128
	VMOVDQU Y4, (DI)
	VMOVDQU Y5, 32(DI)
	VMOVDQU Y6, 64(DI)
	VMOVDQU Y7, 96(DI)
	ADD128
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $128, CX
	JGE  many

few:
	ADDQ $96, CX
	JLT  done

next:
	VMOVDQU (SI), Y4
	VMOVDQU Y4, (DI)
	ADD32
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $32, CX
	JGE  next

done:
	TOTAL
	MOVQ AX, ret+24(FP)
	RET
