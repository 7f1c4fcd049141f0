//! Moves bytes between one socket and one [`Connection`].
//!
//! One task, one future, no channel: a wake-up from the socket, the mailbox, the journal, a timer or the stop signal runs
//! [`Driver::poll`] once, which reads, hands over, collects and writes until nothing moves. Buffers belong to the thread;
//! a connection keeps only a partial packet and what its socket did not take.
//!
//! Does not know: MQTT rules, TLS.

use crate::accept::{Admitted, GAVE_WAY, NO_HANDSHAKE};
use crate::admission::{Entry, Place};
use crate::audit::{NAME_SHOWN_MAX, Refused, shown};
use crate::auth::{Decision, Exchange, Peer, Proof, check_operator};
use crate::clock;
use crate::listener::{Listener, OpenAt, Refusal};
use crate::meters::{ConnectionFacts, Inquiry, Known, Layered};
use crate::runtime;
use crate::server::Server;
use crate::sys_topics::{ClientEvent, ClientEventKind};
use crate::vitals::WatchedCertificate;
use motemq_codec::ReasonCode;
use motemq_core::{
    ClientId, Close, ConnectRequest, Connection, ConnectionRules, DeniedAction, Event, EventKind,
    ExchangeAnswer, ExchangeStage, ExchangeStep, HistoryEvent, Identity, Room, Scope, Timestamp,
    Verdict,
};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A connection and its socket.
pub(crate) struct Driver<S> {
    socket: S,
    connection: Connection,
    server: Arc<Server>,
    listener: OpenAt,
    #[expect(dead_code, reason = "counts the connection while it is open")]
    entry: Entry,
    peer: Peer,
    /// A packet that is not complete yet, or bytes that must wait.
    input: Vec<u8>,
    /// So many bytes must be there before another look is worth it.
    input_needed: usize,
    /// What the socket has not taken yet.
    output: Vec<u8>,
    /// The socket has taken bytes that it may still hold.
    is_unflushed: bool,
    /// What is left to write waits for the receivers of what was published.
    is_courteous: bool,
    /// The check of the credentials, while it runs.
    check: Option<Pin<Box<dyn Future<Output = Decision> + Send>>>,
    /// An enhanced authentication, while the client owes a message.
    exchange: Option<Box<Exchange>>,
    /// What the login rests on, once there is one.
    proof: Option<Proof>,
    /// When that was looked at last.
    login_generation: u64,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Timestamp>,
    deadlines: Deadlines,
    /// What is left to write after the end must be gone by then.
    close_by: Option<Timestamp>,
    /// Until the client is connected. The server wakes it through this, and then through its session.
    place: Option<Box<Place>>,
    /// It has been looked at as of this one whether the connection may stay.
    generation: u64,
    is_counted: bool,
    /// The socket does not take what is ready for it.
    is_stalled: bool,
    /// Counts the client's certificate while it is connected.
    watched: Option<WatchedCertificate>,
    /// Since when.
    connected_at: Timestamp,
}

/// How long a client may take to connect.
#[derive(Copy, Clone)]
pub(crate) struct Deadlines {
    /// Its first byte must have come by then; `None` when it has.
    pub(crate) silent_by: Option<Timestamp>,
    /// CONNECT must be complete by then.
    pub(crate) connect_by: Timestamp,
}

impl Deadlines {
    fn next(self) -> Timestamp {
        self.silent_by
            .map_or(self.connect_by, |by| by.min(self.connect_by))
    }
}

impl<S: AsyncRead + AsyncWrite + Layered + Unpin> Driver<S> {
    /// A driver for a socket that is ready for MQTT, and counted as open and without a session.
    pub(crate) fn new(
        socket: S,
        server: Arc<Server>,
        listener: OpenAt,
        peer: Peer,
        deadlines: Deadlines,
        admitted: Admitted,
    ) -> Self {
        let now = clock::now();
        let rules = ConnectionRules {
            qos_max: listener.qos_max(),
            listener: Some(listener.name()),
            publish_rate: listener.publish_rate(),
            assigned_ids: listener.assigned_ids(),
        };
        let connection = Connection::new(rules, server.broker(), now);
        // Before anything is asked: what changes from now on may have been missed.
        let login_generation = server.generation();
        Self {
            socket,
            connection,
            server,
            listener,
            entry: admitted.entry,
            peer,
            input: Vec::new(),
            input_needed: 0,
            output: Vec::new(),
            is_unflushed: false,
            is_courteous: false,
            check: None,
            exchange: None,
            proof: None,
            login_generation,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            deadlines,
            close_by: None,
            place: Some(Box::new(admitted.place)),
            generation: admitted.generation,
            is_counted: false,
            is_stalled: false,
            watched: None,
            connected_at: now,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut output = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.output));
        if self.output.len() > OUTPUT_SMALL {
            std::mem::swap(&mut output, &mut self.output);
        } else {
            output.extend_from_slice(&std::mem::take(&mut self.output));
        }
        let others = runtime::Waiting::take();
        let result = self.run(cx, &mut output);
        drop(others);
        self.report_denial();
        self.connection
            .flush_tally(self.server.broker(), clock::now);
        if output.len() > OUTPUT_SMALL {
            std::mem::swap(&mut output, &mut self.output);
        } else {
            // A little is kept in as little memory.
            self.output = output.as_slice().into();
            output.clear();
        }
        if output.capacity() <= OUTPUT_KEPT {
            SCRATCH.with_borrow_mut(|scratch| scratch.output = output);
        }
        result
    }

    /// Says in the log what the ACL has denied in this run, the first of it.
    fn report_denial(&mut self) {
        let Some(denial) = self.connection.take_denial() else {
            return;
        };
        let identity = self.identity();
        let refused = Refused {
            history: &self.peer.history,
            what: match denial.action {
                DeniedAction::Enrol => "enrolment",
                _ => "by the ACL",
            },
            reason: denial.action.label(),
            peer: &self.peer.address,
            listener: &self.listener.config().name,
            client: self.connection.client_id().map_or("", ClientId::as_str),
            user: identity.name().unwrap_or_default(),
            rule: &format_args!("{}: {}", denial.topic, denial.why),
            key: match denial.action {
                DeniedAction::Enrol => "[enrolment]",
                _ => "auth.acl_file",
            },
        };
        match denial.action {
            // The ledger has it.
            DeniedAction::Publish => refused.log_line(),
            _ => refused.log(),
        }
    }

    /// Who the client is, once connected.
    fn identity(&self) -> Identity {
        let session = self.connection.session();
        session.map_or(Identity::Anonymous, |session| session.identity())
    }

    fn run(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) -> Poll<()> {
        // One look at the clock: it costs a tenth of the work on a message that comes alone.
        let now = clock::now();
        self.connection.begin(cx.waker(), output);
        self.connection.resume(now);
        if self.server.inquiries().is_any() {
            self.answer_inquiries(output);
        }
        self.poll_stop(cx, output);
        self.poll_check(cx, output);
        self.poll_standing(output);
        if self.is_counted {
            self.poll_login(output);
        }
        let was_counted = self.is_counted;
        let mut rounds = 0;
        loop {
            let was_blocked = self.is_blocked(output);
            let read = self.poll_read(cx, now, output);
            self.note_connected();
            // Once more: a client that connects while the server stops, or changes, is not among those it wakes.
            self.poll_stop(cx, output);
            self.poll_standing(output);
            let more = output.len() < self.connection.output_bytes_max()
                && self
                    .connection
                    .poll_output(self.server.broker(), now, OUTPUT_CHUNK, output);
            if self.gives_way(cx, output) {
                break;
            }
            if self.poll_write(cx, output).is_err() {
                self.connection.close(Close::Lost, &mut Vec::new());
                output.clear();
            }
            if self.connection.closed().is_some() {
                return self.poll_close(cx, output);
            }
            let unblocked = was_blocked && !self.is_blocked(output);
            if !(read || unblocked || more && output.is_empty()) {
                break;
            }
            rounds += 1;
            if rounds == ROUNDS_MAX || self.connection.is_tired() {
                // Others are waiting for this thread.
                cx.waker().wake_by_ref();
                break;
            }
        }
        if self.is_counted && !was_counted {
            // A reload may have been while the credentials were checked; it has woken nobody then.
            self.poll_login(output);
        }
        self.poll_place(cx, output);
        self.poll_timer(cx, now, output);
        if self.connection.closed().is_some() {
            let _ = self.poll_write(cx, output);
            return self.poll_close(cx, output);
        }
        Poll::Pending
    }

    /// Tells who asks what only this task knows.
    #[cold]
    fn answer_inquiries(&mut self, output: &mut Vec<u8>) {
        let Some(client) = self.connection.client_id().cloned() else {
            return;
        };
        // The name that an applicant gives is somebody else's.
        if self.connection.scope() != Scope::Full {
            return;
        }
        for inquiry in self.server.inquiries().take(client.as_str()) {
            let asking = match inquiry {
                Inquiry::Facts(asking) => asking,
                Inquiry::End(asking) => {
                    let close =
                        Close::Dismissed(ReasonCode::AdministrativeAction, ENDED_BY_OPERATOR);
                    self.connection.close(close, output);
                    let _ = asking.send(());
                    continue;
                }
            };
            let known = Known {
                peer: &self.peer,
                version: self.connection.version(),
                connected_at: self.connected_at,
                keep_alive_s: self.connection.keep_alive_s(),
                meters: self.connection.meters(),
            };
            // Who has lost patience has gone.
            let _ = asking.send(ConnectionFacts::new(known, self.socket.layers()));
        }
    }

    /// Whether what is to be written waits until the receivers of what the client has just published have run. It is
    /// acknowledgements, mostly, and a write takes as long as all the rest: they get their messages sooner, and nobody is later
    /// than by one round of the thread. In a batch the write is a small part, and another run of the task would cost more.
    fn gives_way(&mut self, cx: &mut Context<'_>, output: &[u8]) -> bool {
        self.is_courteous = !self.is_courteous
            && !output.is_empty()
            && self.connection.closed().is_none()
            && (1..=COURTESY_MAX).contains(&self.connection.delivered())
            && runtime::give_way(cx.waker());
        self.is_courteous
    }

    /// Ends the connection when the server stops.
    fn poll_stop(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) {
        if let Some(place) = &self.place {
            // Before the look at the server: it wakes who is not connected through this.
            let _ = place.holder().is_evicted(cx.waker());
        }
        if self.server.is_stopping() {
            self.connection.close(Close::ServerShutdown, output);
        }
    }

    /// Ends the connection when somebody else has its place. What the client has sent comes first: it may be its CONNECT.
    fn poll_place(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) {
        let Some(place) = &self.place else { return };
        if place.holder().is_evicted(cx.waker()) && self.connection.closed().is_none() {
            self.refuse(Refusal::UnauthenticatedMax, GAVE_WAY);
            self.connection.close(Close::Lost, output);
        }
    }

    /// After a change: whether the connection may stay.
    fn poll_standing(&mut self, output: &mut Vec<u8>) {
        let generation = self.server.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        if let Err((code, reason)) = self.may_stay() {
            self.connection
                .close(Close::Dismissed(code, reason), output);
        }
    }

    fn may_stay(&mut self) -> Result<(), (ReasonCode, &'static str)> {
        let Some(listener) = self.server.listener_now(&self.listener) else {
            return Err((ReasonCode::AdministrativeAction, "the listener was removed"));
        };
        if Arc::ptr_eq(&listener, &self.listener) {
            listener.tolerates(&self.peer)?;
        } else {
            listener.may_keep(&self.listener, &self.peer)?;
            self.listener.follow(listener);
            self.check_client_id()?;
        }
        if let Some(client) = self.connection.client_id()
            && self.server.bans().has_client(
                &self.peer.address,
                client.as_str(),
                self.identity().name().unwrap_or_default(),
            )
        {
            // DISCONNECT has no code for a ban (MQTT 5 section 3.14.2.1).
            return Err((ReasonCode::AdministrativeAction, BANNED));
        }
        Ok(())
    }

    /// After a change of the listener: whether its rule of client identifiers still allows this one.
    fn check_client_id(&self) -> Result<(), (ReasonCode, &'static str)> {
        let Some(client) = self.connection.client_id() else {
            return Ok(());
        };
        // Who asks for a certificate has no name yet, and a session apart.
        let is_applicant = matches!(self.proof, Some(Proof::Claim | Proof::Applicant));
        let identity = self.identity();
        match is_applicant || self.listener.allows_client_id(client.as_str(), &identity) {
            true => Ok(()),
            // DISCONNECT has no code for the identifier (MQTT 5 section 3.14.2.1).
            false => Err((ReasonCode::NotAuthorized, NOT_ITS_ID)),
        }
    }

    /// Counts and logs why a connection without a session ends.
    fn refuse(&self, refusal: Refusal, rule: &'static str) {
        self.listener.note_refused(refusal);
        Refused {
            history: &self.peer.history,
            what: "connection",
            reason: refusal.label(),
            peer: &self.peer.address,
            listener: &self.listener.config().name,
            client: "",
            user: "",
            rule: &rule,
            key: refusal.key(),
        }
        .log();
    }

    /// Takes the verdict on the credentials, when it is there.
    fn poll_check(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) {
        let Some(check) = &mut self.check else { return };
        let Poll::Ready(Decision { verdict, proof }) = check.as_mut().poll(cx) else {
            return;
        };
        self.check = None;
        self.proof = proof;
        let (broker, now) = (self.server.broker(), clock::now());
        self.connection.handle_verdict(verdict, broker, now, output);
        self.connection.begin(cx.waker(), output);
        let input = std::mem::take(&mut self.input);
        self.feed(cx, now, &input, output);
    }

    /// After a reload: whether the login still stands.
    fn poll_login(&mut self, output: &mut Vec<u8>) {
        let generation = self.server.generation();
        if generation == self.login_generation {
            return;
        }
        // Without a proof the question is open until there is one.
        let Some(proof) = &self.proof else { return };
        self.login_generation = generation;
        let authenticator = self.server.authenticator();
        if !authenticator.still_admits(proof, self.listener.config(), &self.peer) {
            self.connection.close(Close::LoginEnded(LOGIN_GONE), output);
        }
    }

    /// Reads once and hands the bytes over. `true` when there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Timestamp, output: &mut Vec<u8>) -> bool {
        if self.connection.closed().is_some() || self.is_blocked(output) {
            return false;
        }
        // Only a client with a session can be woken when there is room again; others have little to say.
        if self.is_counted && self.server.broker().room() == Room::Congested {
            self.connection.wait_for_room(self.server.broker());
            return false;
        }
        if self.input.len() >= self.input_needed && !self.input.is_empty() {
            // Bytes that had to wait.
            let input = std::mem::take(&mut self.input);
            self.feed(cx, now, &input, output);
            return true;
        }
        let mut buffer = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.input));
        if buffer.is_empty() {
            buffer = vec![0; INPUT_BYTES];
        }
        let mut read = ReadBuf::new(&mut buffer);
        let result = Pin::new(&mut self.socket).poll_read(cx, &mut read);
        let count = read.filled().len();
        let again = match result {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if count > 0 => {
                self.deadlines.silent_by = None;
                if self.input.is_empty() {
                    self.feed(cx, now, buffer.get(..count).unwrap_or_default(), output);
                } else {
                    let mut input = std::mem::take(&mut self.input);
                    input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    self.feed(cx, now, &input, output);
                }
                true
            }
            Poll::Ready(_) => {
                self.connection.close(Close::Lost, &mut Vec::new());
                false
            }
        };
        SCRATCH.with_borrow_mut(|scratch| scratch.input = buffer);
        again
    }

    /// Nothing is read while the client does not take what it is owed, or waits for the disk or a verdict.
    fn is_blocked(&self, output: &[u8]) -> bool {
        output.len() >= self.connection.output_bytes_max() || self.connection.is_paused()
    }

    fn feed(&mut self, cx: &mut Context<'_>, now: Timestamp, bytes: &[u8], output: &mut Vec<u8>) {
        let broker = self.server.broker();
        let (progress, event) = self.connection.handle_bytes(bytes, broker, now, output);
        let rest = bytes.get(progress.consumed..).unwrap_or_default();
        if !rest.is_empty() {
            self.input = rest.to_vec();
        }
        self.input_needed = progress.needed;
        match event {
            Some(Event::Authenticate(request)) => self.authenticate(cx, request, output),
            Some(Event::Exchange(step)) => {
                let client = self.connection.client_id().map(ClientId::as_str);
                let peer = &self.peer;
                let authenticator = self.server.authenticator();
                let claimed = claimed(&step, self.exchange.as_deref());
                let (exchange, proof) = (&mut self.exchange, &mut self.proof);
                let answer = authenticator.answer(exchange, proof, step, client, peer);
                let answer = self.judge(answer, &claimed);
                let broker = self.server.broker();
                self.connection.handle_answer(answer, broker, now, output);
                self.connection.begin(cx.waker(), output);
            }
            None => {}
        }
    }

    /// An answer of the method, unless a ban is in its way.
    fn judge(&mut self, answer: ExchangeAnswer, claimed: &Claimed) -> ExchangeAnswer {
        let (bans, peer) = (self.server.bans(), &self.peer);
        if let ExchangeAnswer::Accepted { login, .. } = &answer
            && self.connection.client_id().is_none()
            && !self
                .listener
                .allows_client_id(&claimed.client, &login.identity)
        {
            report_client_id(&self.listener, peer, &claimed.client, &login.identity);
            let (code, reason) = (ReasonCode::ClientIdentifierNotValid, NOT_ITS_ID);
            self.proof = None;
            return ExchangeAnswer::Refused { code, reason };
        }
        let user = match (&answer, &self.exchange) {
            (ExchangeAnswer::Accepted { login, .. }, _) => {
                login.identity.name().unwrap_or_default()
            }
            (_, Some(exchange)) => exchange.user(),
            _ => &claimed.user,
        };
        let is_banned = match &answer {
            ExchangeAnswer::Refused { code, .. } => {
                if is_failure(*code) && !user.is_empty() {
                    bans.note_failure(&peer.address, user);
                }
                false
            }
            _ => bans.has_login(&peer.address, &claimed.client, user) || bans.has_user(user),
        };
        if !is_banned {
            return answer;
        }
        report_ban(&self.listener, peer, &claimed.client, user);
        self.exchange = None;
        ExchangeAnswer::Refused {
            code: ReasonCode::Banned,
            reason: BANNED,
        }
    }

    fn authenticate(
        &mut self,
        cx: &mut Context<'_>,
        request: ConnectRequest,
        output: &mut Vec<u8>,
    ) {
        let (server, listener) = (self.server.clone(), Arc::clone(&self.listener));
        let peer = self.peer.clone();
        self.check = Some(Box::pin(async move {
            let (client, user) = (request.client_id.clone(), request.username.clone());
            let user = user.unwrap_or_default();
            if server.bans().has_login(&peer.address, &client, &user) {
                return ban(&listener, &peer, &client, &user);
            }
            let decision = match listener.token() {
                Some(token) => check_operator(token, &request, &peer),
                None => {
                    let authenticator = server.authenticator();
                    authenticator.check(request, listener.config(), &peer).await
                }
            };
            match &decision.verdict {
                Verdict::Accepted { login, .. }
                    if login.scope == Scope::Full
                        && !listener.allows_client_id(&client, &login.identity) =>
                {
                    report_client_id(&listener, &peer, &client, &login.identity);
                    let (code, reason) = (ReasonCode::ClientIdentifierNotValid, NOT_ITS_ID);
                    Decision {
                        verdict: Verdict::Refused { code, reason },
                        proof: None,
                    }
                }
                Verdict::Accepted { login, .. }
                    if server
                        .bans()
                        .has_user(login.identity.name().unwrap_or_default()) =>
                {
                    ban(
                        &listener,
                        &peer,
                        &client,
                        login.identity.name().unwrap_or_default(),
                    )
                }
                Verdict::Refused { code, .. } if is_failure(*code) && !user.is_empty() => {
                    server.bans().note_failure(&peer.address, &user);
                    decision
                }
                _ => decision,
            }
        }));
        self.poll_check(cx, output);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) -> std::io::Result<()> {
        let mut written = 0;
        let result = loop {
            let rest = output.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Pending => break Ok(()),
            }
        };
        if written > 0 {
            self.connection.count_sent(written);
            output.drain(..written);
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            // TLS may have taken bytes that the socket has not: they must be pushed again when it is writable.
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        if output.is_empty() == self.is_stalled {
            self.note_stall(!output.is_empty());
        }
        if output.is_empty() && self.connection.is_measured() {
            let now = clock::now();
            self.connection.note_left(self.server.broker(), now);
        }
        result
    }

    /// Counts that the socket begins, or ends, to leave what is ready for it.
    fn note_stall(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
        match is_stalled {
            true => self.server.vitals().note_stall(),
            false => self.server.vitals().note_stall_over(),
        }
    }

    /// Writes what is left, for a moment, then closes.
    fn poll_close(&mut self, cx: &mut Context<'_>, output: &[u8]) -> Poll<()> {
        let now = clock::now();
        let close_by = *self.close_by.get_or_insert(now + CLOSE_TIME);
        if !output.is_empty() && now < close_by {
            self.wake_at(cx, close_by, now);
            return Poll::Pending;
        }
        let closed = Pin::new(&mut self.socket).poll_shutdown(cx);
        let is_over = matches!(
            self.connection.closed(),
            Some(Close::Normal | Close::NormalWithWill | Close::Lost)
        );
        if now < close_by && (closed.is_pending() || !is_over && self.poll_discard(cx).is_pending())
        {
            self.wake_at(cx, close_by, now);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Reads to the end and throws it away: closing with unread bytes would reset the connection, and the client would not
    /// see why it was thrown out.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Timestamp, output: &mut Vec<u8>) {
        let is_late = self.timer_at.is_some_and(|at| now >= at + LATE);
        if is_late {
            // This process did not run for a while. The alarm may be here before what the client has sent meanwhile.
            self.timer_at = None;
            self.wake_at(cx, now + SECOND_LOOK, now);
            return;
        }
        self.connection.handle_timeout(now, output);
        let connect_by = self.deadlines.next();
        if !self.is_counted && now >= connect_by && self.connection.closed().is_none() {
            self.refuse(Refusal::Timeout, NO_HANDSHAKE);
            self.connection.close(Close::Lost, output);
        }
        if self.connection.closed().is_some() {
            return;
        }
        let at = match (self.is_counted, self.connection.poll_timeout()) {
            (false, _) => Some(connect_by),
            (true, at) => at,
        };
        if let Some(at) = at {
            self.wake_at(cx, at, now);
        }
    }

    /// Arms the timer, lazily: an earlier alarm that is still pending leads to a look at the clock, no more.
    fn wake_at(&mut self, cx: &mut Context<'_>, at: Timestamp, now: Timestamp) {
        let is_armed = self
            .timer_at
            .is_some_and(|armed| armed > now && armed <= at);
        if is_armed {
            return;
        }
        self.timer_at = Some(at);
        let deadline = tokio::time::Instant::now() + at.since(now);
        self.timer.as_mut().reset(deadline);
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
            self.timer_at = None;
        }
    }

    fn note_connected(&mut self) {
        if self.is_counted {
            return;
        }
        if let Some(client) = self.connection.client_id() {
            self.is_counted = true;
            self.connected_at = clock::now();
            if let Some(place) = self.place.take() {
                place.succeed();
            }
            self.listener.note_connected(self.connection.version());
            let ends_at = self.peer.certificate.expires_at();
            self.watched = ends_at.map(|at| self.server.vitals().watch_certificate(at));
            // The name that an applicant gives is somebody else's.
            if self.connection.scope() == Scope::Full {
                self.server.bans().note_connected(client.as_str());
            }
            let identity = self.identity();
            self.note_event(client, &identity, ClientEventKind::Connected);
            tracing::info!(
                client = &*shown(client.as_str(), NAME_SHOWN_MAX),
                user = &*shown(identity.name().unwrap_or_default(), NAME_SHOWN_MAX),
                enrols_only = self.connection.scope() == Scope::Enrolment,
                peer = %self.peer.address,
                listener = self.listener.config().name,
                version = %self.connection.version(),
                "client connected"
            );
            let detail = format!(
                "{}, listener {}",
                self.connection.version(),
                self.listener.config().name
            );
            self.peer.history.note(&HistoryEvent {
                peer: &self.peer.address.to_string(),
                detail: &detail,
                ..HistoryEvent::new(
                    clock::now(),
                    EventKind::Connected,
                    client.as_str(),
                    "connected",
                )
            });
        }
    }
}

impl<S> Driver<S> {
    /// For those who subscribe to what clients do; the name that an applicant gives is somebody else's.
    fn note_event(&self, client: &ClientId, identity: &Identity, kind: ClientEventKind) {
        if self.connection.scope() != Scope::Full {
            return;
        }
        let event = ClientEvent {
            client_id: client.as_str(),
            user: identity.name().unwrap_or_default(),
            listener: &self.listener.config().name,
            peer: &self.peer.address,
            version: self.connection.version(),
            kind,
        };
        self.server
            .sys_topics()
            .note_client(self.server.broker(), &event);
    }

    fn has_expired_certificate(&self) -> bool {
        let expires_at = self.peer.certificate.expires_at();
        expires_at.is_some_and(|at| at <= clock::now())
    }
}

impl<S> Driver<S> {
    /// Tells the history how the connection ended.
    fn note_end(&self, client: Option<&ClientId>, close: &Close) {
        let kind = match (client, close) {
            (Some(_), Close::TakenOver) => EventKind::Takeover,
            (Some(_), _) => EventKind::Disconnected,
            // Whoever refuses a login says so, and what is full is said with the log.
            (None, Close::Refused(code)) if self.proof.is_none() && is_of_login(*code) => return,
            (None, Close::Refused(ReasonCode::QuotaExceeded)) => return,
            (None, Close::Refused(_) | Close::Violation(_)) => EventKind::Refused,
            (None, _) => return,
        };
        let meters = self.connection.meters();
        let detail = match (client, close) {
            (None, Close::Refused(code)) => format!("CONNACK 0x{:02x} ({code:?})", *code as u8),
            (None, Close::Violation(violation)) => violation.to_string(),
            (_, Close::Violation(violation)) => format!("{violation}; {meters}"),
            (_, Close::Dismissed(_, why) | Close::LoginEnded(why)) => format!("{why}; {meters}"),
            _ => meters.to_string(),
        };
        let client = client.map_or("", ClientId::as_str);
        self.peer.history.note(&HistoryEvent {
            peer: &self.peer.address.to_string(),
            detail: &detail,
            ..HistoryEvent::new(clock::now(), kind, client, close.label())
        });
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        let client = self.connection.client_id().cloned();
        let session = self.connection.session();
        let identity = session.map_or(Identity::Anonymous, |session| session.identity());
        let user = identity.name().unwrap_or_default();
        self.connection.finish(self.server.broker(), clock::now());
        if self.is_stalled {
            self.server.vitals().note_stall_over();
        }
        let Some(close) = self.connection.closed() else {
            return;
        };
        let connected = self.is_counted.then(|| self.connection.version());
        self.listener.note_closed(close, connected);
        self.note_end(client.as_ref(), close);
        let reason = close.label();
        if let (Some(client), true) = (&client, self.is_counted) {
            self.note_event(client, &identity, ClientEventKind::Disconnected(reason));
        }
        match (client, close) {
            (Some(client), Close::Violation(violation)) => {
                Refused {
                    history: &self.peer.history,
                    what: "client that broke a rule or a limit",
                    reason,
                    peer: &self.peer.address,
                    listener: &self.listener.config().name,
                    client: client.as_str(),
                    user,
                    rule: violation,
                    key: "",
                }
                .log_line();
            }
            (Some(client), Close::Dismissed(_, rule)) if *rule != ENDED_BY_OPERATOR => {
                Refused {
                    history: &self.peer.history,
                    what: "client that a change does not admit any more",
                    reason,
                    peer: &self.peer.address,
                    listener: &self.listener.config().name,
                    client: client.as_str(),
                    user,
                    rule: &match self.peer.certificate_ids {
                        Some(_) => format!("{rule}: {}", self.peer.certificate_shown()),
                        None => (*rule).to_owned(),
                    },
                    key: match *rule {
                        BANNED => Refusal::Banned.key(),
                        _ => "[[listeners]]",
                    },
                }
                .log_line();
            }
            (Some(client), Close::LoginEnded(LOGIN_GONE)) if !self.has_expired_certificate() => {
                Refused {
                    history: &self.peer.history,
                    what: "client whose user, password, key or certificate was removed or changed",
                    reason,
                    peer: &self.peer.address,
                    listener: &self.listener.config().name,
                    client: client.as_str(),
                    user,
                    rule: &LOGIN_GONE,
                    key: "[auth]",
                }
                .log_line();
            }
            (Some(client), Close::LoginEnded(_)) if self.has_expired_certificate() => {
                Refused {
                    history: &self.peer.history,
                    what: "client whose certificate has expired",
                    reason,
                    peer: &self.peer.address,
                    listener: &self.listener.config().name,
                    client: client.as_str(),
                    user,
                    rule: &self.peer.certificate_shown(),
                    key: "issue it a new one: motemq-certs",
                }
                .log_line();
            }
            (Some(client), _) => {
                tracing::info!(
                    client = &*shown(client.as_str(), NAME_SHOWN_MAX),
                    reason,
                    "client disconnected"
                );
            }
            (None, Close::Refused(ReasonCode::QuotaExceeded)) => {
                Refused {
                    history: &self.peer.history,
                    what: "client",
                    reason,
                    peer: &self.peer.address,
                    listener: &self.listener.config().name,
                    client: "",
                    user: "",
                    rule: &"there is no room for it: mqtt_broker_limit_reached_total says which limit",
                    key: "limits.sessions_max, identity_sessions_max, identity_connections_max, payload_bytes_max; persistence.store_bytes_max",
                }
                .log();
            }
            (None, close) => {
                tracing::debug!(peer = %self.peer.address, reason, ?close, "connection ended before CONNACK");
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Layered + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll(self.get_mut(), cx)
    }
}

/// Who a client says it is.
struct Claimed {
    client: String,
    user: String,
}

/// What a step of an enhanced authentication says of that, or the exchange before it.
fn claimed(step: &ExchangeStep, exchange: Option<&Exchange>) -> Claimed {
    match (&step.stage, exchange) {
        (ExchangeStage::Connect { request, .. }, _) => Claimed {
            client: request.client_id.clone(),
            user: request.username.clone().unwrap_or_default(),
        },
        (_, exchange) => Claimed {
            client: exchange.map_or("", Exchange::client).to_owned(),
            user: exchange.map_or("", Exchange::user).to_owned(),
        },
    }
}

/// Whether a CONNECT was refused for who sent it.
fn is_of_login(code: ReasonCode) -> bool {
    is_failure(code)
        || matches!(
            code,
            ReasonCode::Banned | ReasonCode::ServerBusy | ReasonCode::BadAuthenticationMethod
        )
}

/// Whether a refusal says that somebody does not know a password.
fn is_failure(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized
    )
}

fn ban(listener: &Listener, peer: &Peer, client: &str, user: &str) -> Decision {
    report_ban(listener, peer, client, user);
    Decision {
        verdict: Verdict::Refused {
            code: ReasonCode::Banned,
            reason: BANNED,
        },
        proof: None,
    }
}

fn report_ban(listener: &Listener, peer: &Peer, client: &str, user: &str) {
    Refused {
        history: &peer.history,
        what: "client",
        reason: Refusal::Banned.label(),
        peer: &peer.address,
        listener: &listener.config().name,
        client,
        user,
        rule: &BANNED,
        key: Refusal::Banned.key(),
    }
    .log();
}

fn report_client_id(listener: &Listener, peer: &Peer, client: &str, identity: &Identity) {
    Refused {
        history: &peer.history,
        what: "client",
        reason: "client_id",
        peer: &peer.address,
        listener: &listener.config().name,
        client,
        user: identity.name().unwrap_or_default(),
        rule: &NOT_ITS_ID,
        key: "client_id of this listener",
    }
    .log();
}

/// Buffers of a thread; taken for the time of one run.
#[derive(Default)]
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a client is told whose login no longer stands.
const LOGIN_GONE: &str = "the login is no longer valid";
/// What a client is told where identifiers are names of users.
const NOT_ITS_ID: &str = "the client identifier must be the user name that the login proves";
/// What a client is told whose connection an operator ends.
const ENDED_BY_OPERATOR: &str = "ended by an operator";
/// What a banned client is told.
const BANNED: &str = "banned for now";
/// Bytes read in one go.
const INPUT_BYTES: usize = 64 << 10;
/// Deliveries are encoded up to this many bytes before they are written.
const OUTPUT_CHUNK: usize = 64 << 10;
/// So many messages in one run are no batch.
const COURTESY_MAX: u64 = 2;
/// So little is kept by copying it, and leaves the thread its buffer.
const OUTPUT_SMALL: usize = 1 << 10;
/// A thread's output buffer is given back to the system above this capacity.
const OUTPUT_KEPT: usize = 1 << 20;
/// An alarm that is so late says that the process was stopped, or the machine asleep.
const LATE: Duration = Duration::from_millis(500);
/// Then deadlines are looked at after so long, when the sockets have been.
const SECOND_LOOK: Duration = Duration::from_millis(100);
/// Reads in one run of the task.
const ROUNDS_MAX: usize = 8;
/// How long the last bytes may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);
