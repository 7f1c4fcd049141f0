//! What must be true of a client's session at the broker, told from the driver's side of the wire.
//!
//! A crash makes some of it uncertain: what was not confirmed to the client may have happened or not. Session expiry is
//! exact to the millisecond while the broker lives, and may begin anew at a restart.

/// Whether the broker has the session.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Presence {
    /// It has not.
    #[default]
    Absent,
    /// It has, until it expires.
    Present,
    /// It may have.
    Unsure,
}

/// A client's session at the broker.
#[derive(Clone, Debug, Default)]
pub struct Life {
    presence: Presence,
    /// The connection that holds it.
    pub link: Option<usize>,
    expiry_min_s: u32,
    expiry_max_s: u32,
    /// What CONNECT asked for: a DISCONNECT that changed it may be lost.
    connect_s: u32,
    /// The connection ended at this time, or, after a crash, at the latest at the other.
    off_ms: u64,
    off_latest_ms: u64,
    /// The last connection that was accepted.
    last_link: Option<usize>,
    /// The client has seen CONNACK of that connection: the session, as it asked for it, is durable.
    is_confirmed: bool,
    /// The longest expiry of what may come back after a crash.
    ghost_s: u32,
}

impl Life {
    /// What CONNACK must say; `None` when both are right.
    #[must_use]
    pub fn expected(&self, clean_start: bool, now_ms: u64) -> Option<bool> {
        if clean_start {
            return Some(false);
        }
        if self.link.is_some() {
            return Some(self.expiry_min_s > 0);
        }
        let is_gone = now_ms >= self.off_latest_ms + u64::from(self.expiry_max_s) * 1000;
        match self.presence {
            Presence::Absent => Some(false),
            _ if is_gone => Some(false),
            Presence::Present if now_ms < self.off_ms + u64::from(self.expiry_min_s) * 1000 => {
                Some(true)
            }
            _ => None,
        }
    }

    /// The expiry of the present connection.
    #[must_use]
    pub fn expiry_s(&self) -> u32 {
        self.expiry_min_s
    }

    /// Whether the session was durable before its last DISCONNECT.
    #[must_use]
    pub fn was_durable(&self) -> bool {
        self.ghost_s > 0
    }

    /// CONNECT was accepted.
    pub fn accept(&mut self, link: usize, expiry_s: u32) {
        self.presence = Presence::Present;
        self.link = Some(link);
        self.last_link = Some(link);
        self.ghost_s = self.ghost_s.max(self.expiry_max_s).max(expiry_s);
        self.expiry_min_s = expiry_s;
        self.expiry_max_s = expiry_s;
        self.connect_s = expiry_s;
        self.is_confirmed = false;
    }

    /// The client has read CONNACK.
    pub fn confirm(&mut self, link: usize) {
        if self.last_link == Some(link) {
            self.is_confirmed = true;
            self.ghost_s = self.expiry_max_s;
        }
    }

    /// Whether the client has read CONNACK of the last connection.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// The connection ended; DISCONNECT may have set another expiry.
    pub fn finish(&mut self, link: usize, expiry_s: Option<u32>, now_ms: u64) {
        if self.link != Some(link) {
            return;
        }
        self.link = None;
        self.off_ms = now_ms;
        self.off_latest_ms = now_ms;
        if let Some(expiry_s) = expiry_s {
            self.expiry_min_s = expiry_s;
            self.expiry_max_s = expiry_s;
        }
        if self.expiry_max_s == 0 {
            self.presence = Presence::Absent;
        }
    }

    /// The broker lost power, and starts again at `now_ms`.
    pub fn crash(&mut self, now_ms: u64) {
        self.off_latest_ms = now_ms;
        match (self.link.take(), self.presence) {
            (Some(_), _) if self.is_confirmed => {
                self.off_ms = now_ms;
                if self.expiry_max_s == 0 {
                    self.presence = Presence::Absent;
                }
            }
            (None, Presence::Present) if self.is_confirmed => {
                self.expiry_min_s = self.expiry_min_s.min(self.connect_s);
                self.expiry_max_s = self.expiry_max_s.max(self.ghost_s);
            }
            _ => {
                self.presence = Presence::Unsure;
                self.expiry_min_s = 0;
                self.expiry_max_s = self.expiry_max_s.max(self.ghost_s);
            }
        }
    }
}
