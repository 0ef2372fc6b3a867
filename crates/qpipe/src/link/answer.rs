//! Hellos on connections that this side accepted: hearing, refusing, answering.

use std::sync::Arc;

use qpipe_proto::cause::Cause;
use qpipe_proto::hello::{self, Enrolled, Instance};
use qpipe_proto::limits::VERSION;
use qpipe_proto::wire::{ControlDecoder, ControlMessage, Hello, encode_control};
use qpipe_proto::{Session, Side};
use quinn::VarInt;

use super::assembler::Assembler;
use super::greet::{
    ControlStreams, Given, GreetError, Greeted, Terms, adopt, in_time, our_hello, read_hello,
    reserve,
};
use super::wire::Adoption;
use super::{Link, Wire, codes};

/// The peer's Hello, on a connection that this side accepted.
pub(crate) struct Heard {
    pub(crate) greeted: Greeted,
    pub(crate) hello: Hello,
    streams: ControlStreams,
}

/// An acceptor's refusal of a dialler: what the connection is closed with.
#[derive(Debug)]
pub(crate) struct RefusedHello {
    pub(crate) code: VarInt,
    pub(crate) reason: String,
}

/// Waits for Hello on a connection that this side accepted.
pub(crate) async fn hear_hello(greeted: Greeted) -> Result<Heard, GreetError> {
    let conn = greeted.conn.clone();
    let mut decoder = ControlDecoder::default();
    let hear = async {
        let (send, recv) = conn.accept_bi().await?;
        let mut recv = Assembler::new(recv);
        let theirs = read_hello(&mut recv, &mut decoder).await?;
        Ok((send, recv, theirs))
    };
    let (send, recv, hello) = match in_time(hear).await {
        Ok(heard) => heard,
        Err(error) => {
            // A Hello that is late may be that of a session, which is not over for that.
            let is_late = matches!(error, GreetError::Silent);
            let code = if is_late { codes::DONE } else { codes::PROTOCOL };
            conn.close(code, b"the first message must be Hello");
            return Err(error);
        }
    };
    if let Err(mismatch) = hello::agree(&hello) {
        conn.close(codes::VERSION, format!("this side speaks qpipe/{VERSION} only").as_bytes());
        return Err(mismatch.into());
    }
    Ok(Heard { greeted, hello, streams: ControlStreams { send, recv, decoder } })
}

impl Heard {
    /// Refuses the Hello.
    pub(crate) fn refuse(self, refused: &RefusedHello) {
        self.greeted.conn.close(refused.code, refused.reason.as_bytes());
    }

    /// Answers that the session is not known here (any more).
    pub(crate) async fn answer_gone(mut self, instance: Instance) {
        let Hello { session, epoch, limits, .. } = self.hello;
        let hello = our_hello(session, epoch, instance, false, limits);
        let answer = encode_control(&ControlMessage::Hello(hello));
        let conn = self.greeted.conn;
        // Closed here, the connection would lose the answer: the dialler closes it.
        let answered = async {
            let _ = self.streams.send.write_all(&answer).await;
            Ok(conn.closed().await)
        };
        if in_time(answered).await.is_err() {
            conn.close(codes::GONE, b"the session is not known here");
        }
    }

    /// Answers, and begins the session.
    pub(crate) async fn begin(
        mut self,
        terms: Terms,
        enrolled: Option<Enrolled>,
        is_stranger: bool,
    ) -> Result<Arc<Link>, GreetError> {
        let conn = self.greeted.conn.clone();
        let Some((reserve, ours)) = reserve(&terms.place.account) else {
            conn.close(codes::BUSY, b"no memory left for another session");
            return Err(GreetError::Busy);
        };
        let Hello { session, epoch, instance, limits, .. } = self.hello;
        let hello = our_hello(session, epoch, terms.instance, false, ours);
        let hello = Hello { enrolled: enrolled.clone(), ..hello };
        // A peer that gives no credit for the answer is not to hold its place.
        let answer = encode_control(&ControlMessage::Hello(hello));
        let send = &mut self.streams.send;
        if in_time(async { Ok(send.write_all(&answer).await) }).await.is_err() {
            conn.close(codes::PROTOCOL, b"the answer to Hello was not taken");
            return Err(GreetError::NoHello);
        }
        let account = terms.place.account.clone();
        let state = Session::new(Side::Acceptor, epoch, ours, limits.clamped(), account, reserve);
        let given = Given {
            greeted: self.greeted,
            session: state,
            instance,
            enrolled,
            way: None,
            is_stranger,
        };
        Ok(given.link(session, terms, self.streams))
    }

    /// Answers, and goes on with a session on this connection.
    pub(crate) fn resume(self, link: &Arc<Link>, instance: Instance) {
        let Hello { session, epoch, limits: theirs, .. } = self.hello;
        let limits = link.lock().session.limits();
        let answer = our_hello(session, epoch, instance, true, limits);
        let first = encode_control(&ControlMessage::Hello(answer));
        let wire = Wire::new(self.greeted.conn, epoch);
        adopt(link, Adoption { wire, streams: self.streams, first, is_dialled: false }, theirs);
    }
}

/// The cause that a refusal of a Hello amounts to, for messages.
pub(crate) fn cause_of(code: VarInt) -> Cause {
    match code {
        codes::BUSY => Cause::Busy,
        codes::NOT_ALLOWED => Cause::NotAllowed,
        codes::TICKET => Cause::Ticket,
        codes::DONE | codes::GONE => Cause::Stopping,
        _ => Cause::Protocol,
    }
}
