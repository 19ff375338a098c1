package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kitnet.dev/kit/stack/wire"
)

// cell is what one event does in one state: the flags of the segments that leave, the
// state after it and the error that the user sees.
type cell struct {
	sends []wire.TCPFlags
	state State
	err   Error
}

func to(s State, sends ...wire.TCPFlags) cell   { return cell{sends, s, None} }
func dies(e Error, sends ...wire.TCPFlags) cell { return cell{sends, Closed, e} }
func stays(sends ...wire.TCPFlags) func(State) cell {
	return func(s State) cell { return to(s, sends...) }
}

// ready are the makers of a connection in each state in which one exists.
var ready = map[State]func(*testing.T, ...setup) *script{
	Closed: closed,
	SynSent: func(t *testing.T, s ...setup) *script {
		p, _ := synSent(t, s...)
		return p
	},
	SynReceived: synReceived, Established: established, FinWait1: finWait1, FinWait2: finWait2,
	CloseWait: closeWait, Closing: closing, LastAck: lastAck, TimeWait: timeWait,
}

// The event × state matrix of RFC 9293 section 3.10: the user calls of 3.10.1 to
// 3.10.5, SEGMENT ARRIVES of 3.10.7 and the timeouts of 3.10.8. LISTEN is the
// Layer's, see TestListen.
func TestMatrix(t *testing.T) {
	const R, A, F, S = RST, ACK, FIN, SYN
	all := []State{Closed, SynSent, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait}
	each := func(f func(State) cell) (cells []cell) {
		for _, s := range all {
			cells = append(cells, f(s))
		}
		return cells
	}
	row := func(cells ...cell) []cell { return cells }
	events := []struct {
		name  string
		event func(p *script)
		cells []cell // in the order of all
	}{
		{"OPEN, active (3.10.1)", func(p *script) { p.c.Connect(p.now) },
			row(to(SynSent, S), to(SynSent), to(SynReceived), to(Established), to(FinWait1), to(FinWait2), to(CloseWait), to(Closing), to(LastAck), to(TimeWait))},
		{"SEND (3.10.2)", func(p *script) { p.tx.Write([]byte("x")) },
			// The text is queued before ESTABLISHED; behind our FIN there is none.
			row(to(Closed), to(SynSent), to(SynReceived), to(Established, A), to(FinWait1), to(FinWait2), to(CloseWait, A), to(Closing), to(LastAck), to(TimeWait))},
		{"CLOSE (3.10.4)", func(p *script) { p.c.Shutdown(p.now) },
			row(to(Closed), to(Closed), to(SynReceived), to(FinWait1, F|A), to(FinWait1), to(FinWait2), to(LastAck, F|A), to(Closing), to(LastAck), to(TimeWait))},
		{"ABORT (3.10.5)", func(p *script) { p.c.Abort(p.now) },
			row(to(Closed), dies(ErrAborted), dies(ErrAborted, R|A), dies(ErrAborted, R|A), dies(ErrAborted, R|A), dies(ErrAborted, R|A),
				dies(ErrAborted, R|A), dies(ErrAborted), dies(ErrAborted), to(Closed))},
		{"RST at RCV.NXT (3.10.7.4, second)", func(p *script) { p.c.Arrives(p.now, p.segment(R, nil)) },
			row(to(Closed), to(SynSent), to(Closed), dies(ErrReset), dies(ErrReset), dies(ErrReset), dies(ErrReset), to(Closed), to(Closed), to(Closed))},
		{"RST with a good ACK (3.10.7.3, second)", func(p *script) { p.c.Arrives(p.now, p.segment(R|A, nil)) },
			row(to(Closed), dies(ErrRefused), to(Closed), dies(ErrReset), dies(ErrReset), dies(ErrReset), dies(ErrReset), to(Closed), to(Closed), to(Closed))},
		{"RST in the window (RFC 5961 3.2)", func(p *script) { p.c.Arrives(p.now, p.segment(R, []field{seq(p.c.rcv.nxt + 1)})) },
			row(to(Closed), to(SynSent), to(SynReceived, A), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"RST outside of the window (3.10.7.4, first)", func(p *script) { p.c.Arrives(p.now, p.segment(R, []field{seq(p.c.rcv.adv + 1)})) },
			each(stays())},
		{"SYN in the window (3.10.7.4, fourth; RFC 5961 4.2)", func(p *script) { p.c.Arrives(p.now, p.segment(S, []field{seq(p.c.rcv.nxt)})) },
			// In SYN-SENT it is a simultaneous open, in SYN-RECEIVED the passive open returns to LISTEN.
			row(to(Closed), to(SynReceived, S|A), to(Closed), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"SYN outside of the window (3.10.7.4, first)", func(p *script) { p.c.Arrives(p.now, p.segment(S, []field{seq(p.c.rcv.adv + 9)})) },
			row(to(Closed), to(SynReceived, S|A), to(SynReceived, A), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"SYN-ACK of our SYN (3.10.7.3, fourth)", func(p *script) { p.c.Arrives(p.now, p.segment(S|A, nil)) },
			row(to(Closed), to(Established, A), to(Closed), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"no ACK bit (3.10.7.4, fifth)", func(p *script) { p.c.Arrives(p.now, p.segment(0, []field{text(1)})) },
			each(stays())},
		{"ACK of all (3.10.7.4, fifth)", func(p *script) { p.c.Arrives(p.now, p.segment(A, nil)) },
			row(to(Closed), to(SynSent), to(Established), to(Established), to(FinWait2), to(FinWait2), to(CloseWait), to(TimeWait), to(Closed), to(TimeWait))},
		{"ACK of nothing new (3.10.7.4, fifth)", func(p *script) { p.c.Arrives(p.now, p.segment(A, []field{ack(p.c.snd.una)})) },
			row(to(Closed), to(SynSent, R), to(SynReceived, R), to(Established), to(FinWait1), to(FinWait2), to(CloseWait), to(Closing), to(LastAck), to(TimeWait))},
		{"ACK of what was not sent (RFC 5961 5.2)", func(p *script) { p.c.Arrives(p.now, p.segment(A, []field{ack(p.c.snd.nxt + 1)})) },
			row(to(Closed), to(SynSent, R), to(SynReceived, R), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"ACK too old (RFC 5961 5.2)", func(p *script) { p.c.Arrives(p.now, p.segment(A, []field{ack(p.c.snd.una - testWindow - 1)})) },
			row(to(Closed), to(SynSent, R), to(SynReceived, R), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"text (3.10.7.4, seventh)", func(p *script) { p.c.Arrives(p.now, p.segment(A, []field{text(5), ack(p.c.snd.una)})) },
			// Behind the peer's FIN there is none: it is not acceptable, or ignored.
			row(to(Closed), to(SynSent, R), to(SynReceived, R), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait), to(Closing), to(LastAck), to(TimeWait))},
		{"text outside of the window (3.10.7.4, first)", func(p *script) { p.c.Arrives(p.now, p.segment(A, []field{text(5), seq(p.c.rcv.adv + 1)})) },
			row(to(Closed), to(SynSent), to(SynReceived, A), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"FIN (3.10.7.4, eighth)", func(p *script) { p.c.Arrives(p.now, p.segment(F|A, []field{ack(p.c.snd.una)})) },
			row(to(Closed), to(SynSent, R), to(SynReceived, R), to(CloseWait, A), to(Closing, A), to(TimeWait, A), to(CloseWait), to(Closing), to(LastAck), to(TimeWait))},
		{"FIN that acknowledges all (3.10.7.4, fifth and eighth)", func(p *script) { p.c.Arrives(p.now, p.segment(F|A, nil)) },
			row(to(Closed), to(SynSent), to(CloseWait, A), to(CloseWait, A), to(TimeWait, A), to(TimeWait, A), to(CloseWait), to(TimeWait), to(Closed), to(TimeWait))},
		{"FIN again (3.10.7.4, first)", func(p *script) { p.c.Arrives(p.now, p.segment(F|A, []field{seq(p.c.rcv.nxt - 1), ack(p.c.snd.una)})) },
			// Before the FIN came, this is the number of what was taken already: an ACK says so.
			row(to(Closed), to(SynSent, R), to(SynReceived, A), to(Established, A), to(FinWait1, A), to(FinWait2, A), to(CloseWait, A), to(Closing, A), to(LastAck, A), to(TimeWait, A))},
		{"USER TIMEOUT (3.10.8)", func(p *script) {
			p.c.SetUserTimeout(p.now, time.Second)
			p.c.timer.progressAt = p.now.Add(-time.Second)
			p.c.rexmtTimeout(p.now)
		},
			// Where nothing is in flight there is nothing to time out.
			row(to(Closed), dies(ErrTimeout), to(Closed), to(Established), dies(ErrTimeout), to(FinWait2), to(CloseWait), dies(ErrTimeout), dies(ErrTimeout), to(TimeWait))},
		{"RETRANSMISSION TIMEOUT (3.10.8)", func(p *script) { p.c.retransmissionTimeout(p.now) },
			row(to(Closed), to(SynSent, S), to(SynReceived, S|A), to(Established), to(FinWait1, F|A), to(FinWait2), to(CloseWait), to(Closing, F|A), to(LastAck, F|A), to(TimeWait))},
		{"TIME-WAIT TIMEOUT (3.10.8)", func(p *script) { p.c.keepTimeout(p.now) },
			row(to(Closed), to(SynSent), to(SynReceived), to(Established), to(FinWait1), to(FinWait2), to(CloseWait), to(Closing), to(LastAck), to(Closed))},
	}
	for _, e := range events {
		t.Run(e.name, func(t *testing.T) {
			require.Len(t, e.cells, len(all), "a cell for each state")
			for i, state := range all {
				t.Run(state.String(), func(t *testing.T) {
					p := ready[state](t)
					want := e.cells[i]
					e.event(p)
					p.emit()
					for _, flags := range want.sends {
						p.wants(flags)
					}
					p.wantIdle("that is all")
					p.wantState(want.state)
					if want.err != None {
						p.wantErr(want.err)
					} else {
						require.NoError(t, p.c.Err())
					}
				})
			}
		})
	}
}
