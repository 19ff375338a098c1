package iperf3

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"
)

// state is the byte that moves a test on (iperf_api.h of iperf3).
type state int8

const (
	testStart       state = 1
	testRunning     state = 2
	testEnd         state = 4
	paramExchange   state = 9
	createStreams   state = 10
	serverTerminate state = 11
	clientTerminate state = 12
	exchangeResults state = 13
	displayResults  state = 14
	iperfDone       state = 16
	accessDenied    state = -1
	serverError     state = -2
)

var stateNames = map[state]string{
	testStart: "TEST_START", testRunning: "TEST_RUNNING", testEnd: "TEST_END", paramExchange: "PARAM_EXCHANGE",
	createStreams: "CREATE_STREAMS", serverTerminate: "SERVER_TERMINATE", clientTerminate: "CLIENT_TERMINATE",
	exchangeResults: "EXCHANGE_RESULTS", displayResults: "DISPLAY_RESULTS", iperfDone: "IPERF_DONE",
	accessDenied: "ACCESS_DENIED", serverError: "SERVER_ERROR",
}

// wire is the state as it is sent, in two's complement.
func (s state) wire() byte { return byte(s) }

func (s state) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return "state " + strconv.Itoa(int(s))
}

// code is what follows SERVER_ERROR: iperf3's number for what went wrong (iperf_api.h). The client prints its own sentence.
type code uint32

const (
	codeDuration       code = 5   // IEDURATION
	codeStreams        code = 6   // IENUMSTREAMS
	codeBlockSize      code = 7   // IEBLOCKSIZE
	codeBufferSize     code = 8   // IEBUFSIZE
	codeMSS            code = 10  // IEMSS
	codeOmit           code = 12  // IEOMIT
	codeBurst          code = 15  // IEBURST
	codeUDPBlockSize   code = 20  // IEUDPBLOCKSIZE
	codeTOS            code = 21  // IEBADTOS
	codeReverseBidir   code = 25  // IEREVERSEBIDIR
	codeMessage        code = 110 // IEMESSAGE
	codeReceiveParams  code = 114 // IERECVPARAMS
	codeReceiveResults code = 117 // IERECVRESULTS
	codeSetNoDelay     code = 122 // IESETNODELAY
	codeSetMSS         code = 123 // IESETMSS
	codeSetBuffer      code = 124 // IESETBUF
	codeSetTOS         code = 125 // IESETTOS
	codeProtocol       code = 131 // IEPROTOCOL
	codeSetCongestion  code = 134 // IESETCONGESTION
	codeNoMessage      code = 144 // IENOMSG
	codeExpired        code = 160 // IESERVERTESTDURATIONEXPIRED, of iperf3 3.19 and later
	codeStreamListen   code = 202 // IESTREAMLISTEN
	codeStreamAccept   code = 204 // IESTREAMACCEPT
	codeStreamWrite    code = 205 // IESTREAMWRITE
	codeStreamRead     code = 206 // IESTREAMREAD
)

// fault is what ends a test and is told the client.
type fault struct {
	code code
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func faultf(c code, format string, args ...any) error { return &fault{c, fmt.Errorf(format, args...)} }

// message is SERVER_ERROR with its two numbers, 4 bytes each, big-endian: the code and errno, 0 where none is known.
func (f *fault) message() []byte {
	var errno syscall.Errno
	errors.As(f.err, &errno)
	b := []byte{serverError.wire()}
	b = binary.BigEndian.AppendUint32(b, uint32(f.code))
	return binary.BigEndian.AppendUint32(b, uint32(errno))
}

const (
	// maxParams and maxResults are the longest JSON texts that are read, in bytes. iperf3's own server stops at 8 KiB of
	// parameters, and reads results of any length.
	maxParams  = 64 << 10
	maxResults = 1 << 20
)

// cookie is a test's name: 36 characters that the client picked, and a NUL.
type cookie [37]byte

// readCookie reads a cookie and refuses what no iperf3 client sends.
func readCookie(r io.Reader) (c cookie, err error) {
	if _, err = io.ReadFull(r, c[:]); err != nil {
		return c, err
	}
	end := len(c) - 1
	for i, b := range c[:end] {
		if b <= ' ' || b > '~' {
			end = i
			break
		}
	}
	for _, b := range c[end:] {
		if end == 0 || b != 0 {
			return c, fmt.Errorf("it said %q instead of a cookie: not an iperf3 client", c[:])
		}
	}
	return c, nil
}

// readFrame reads a JSON text of 1 to limit bytes behind its length. Another length is a fault of the given code.
func readFrame(r io.Reader, limit int, c code) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || uint64(n) > uint64(limit) {
		return nil, faultf(c, "a JSON text of %d bytes is announced; 1 to %d are allowed", n, limit)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// appendFrame appends a JSON text behind its length to b.
func appendFrame(b, text []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}
