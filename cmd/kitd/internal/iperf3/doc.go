// Package iperf3 is a server for the iperf3 client (https://software.es.net/iperf/), TCP and UDP, in both directions.
//
// A test has one control connection, and the client opens the data streams to the same port. On the control connection go
// single bytes that name a state, and JSON texts behind a length of 4 bytes, big-endian:
//
//	client                                    server
//	cookie, 37 bytes                  ──▶
//	                                  ◀──     PARAM_EXCHANGE, or ACCESS_DENIED while another test runs
//	parameters, JSON                  ──▶
//	                                  ◀──     CREATE_STREAMS
//	opens the streams                 ──▶
//	                                  ◀──     TEST_START, TEST_RUNNING
//	        data on the streams, one way, the other, or both
//	TEST_END                          ──▶
//	                                  ◀──     EXCHANGE_RESULTS
//	results, JSON                     ──▶
//	                                  ◀──     results, JSON; DISPLAY_RESULTS
//	IPERF_DONE                        ──▶
//
// A TCP stream begins with the cookie of its test. A UDP stream begins with a datagram of 4 bytes, which is answered by
// another; here all of a test's UDP streams share one socket and are told apart by the client's port. The client decides
// when a test ends, by time, bytes or blocks; the server only sees to it that no test lasts for ever. Where something is
// wrong, the server says SERVER_ERROR and two numbers, iperf3's own and errno.
//
// Stream identifiers are 1, 3, 4, 5 and so on in the order in which the streams were opened: the 2 is left out by iperf3, and
// both ends have to agree. With --bidir, the first half of the streams is the client's to send on.
//
// The server uses no sockets of its own making: Config's Network gives them. What a connection can do besides net.Conn is
// found by type assertion, see conn.go.
package iperf3
