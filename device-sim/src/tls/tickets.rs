//! A device's session ticket: the newest one, in whichever version of TLS, and no other.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::sync::{Mutex, MutexGuard};

/// Room for one ticket. All is for the one server that a device knows.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<Option<Box<Ticket>>>);

#[derive(Debug)]
enum Ticket {
    V12(Tls12ClientSessionValue),
    V13(Tls13ClientSessionValue),
}

impl Tickets {
    #[expect(
        clippy::expect_used,
        reason = "no code that can panic runs under this lock"
    )]
    fn lock(&self) -> MutexGuard<'_, Option<Box<Ticket>>> {
        self.0.lock().expect("tickets are never poisoned")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    /// Small stacks send the share of their first group, always.
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        *self.lock() = Some(Box::new(Ticket::V12(session)));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        match self.lock().as_deref() {
            Some(Ticket::V12(session)) => Some(session.clone()),
            _ => None,
        }
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.lock()
            .take_if(|ticket| matches!(**ticket, Ticket::V12(_)));
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        *self.lock() = Some(Box::new(Ticket::V13(ticket)));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self
            .lock()
            .take_if(|ticket| matches!(**ticket, Ticket::V13(_)))?;
        match *ticket {
            Ticket::V13(ticket) => Some(ticket),
            Ticket::V12(_) => None,
        }
    }
}
