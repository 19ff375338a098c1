package stack

import "kitnet.dev/kit/stack/tcp"

// An active connection begins on an engine that nothing has told better, and its answers may come to another: then it goes
// over to that one, so that a flow stays on the queue where its segments arrive. Only the answer to the SYN moves a
// connection; what comes elsewhere later goes by the inbox.

// noteArrival has the connection move when this step is done, if the segment that ended its handshake came from another engine.
func (e *Engine) noteArrival(st *Stream, before tcp.State) {
	from := e.rx.from
	if before == tcp.SynSent && st.conn.State() == tcp.Established && from != nil && from.iface == e.iface && from.via == from {
		st.moveTo = from
	}
}

// handOver gives a connection to another engine. From here on it is that one's: adopting keeps it from serving the connection
// before it has been told.
func (e *Engine) handOver(st *Stream) {
	to := st.moveTo
	st.moveTo = nil
	e.conns.remove(st)
	e.wheel.stop(&st.timer)
	e.sockets--
	st.adopting.Store(true)
	st.e.Store(to)
	to.post(func() { to.adopt(st) })
	e.iface.flows.move(&st.id, to)
}

func (e *Engine) adopt(st *Stream) {
	st.adopting.Store(false)
	st.conn.Rehome(e.layer)
	e.conns.insert(st)
	e.sockets++
	e.touch(st)
}
