//! Shared subscriptions in a run: moments of rest, at which what is owed must have arrived.

use super::*;

impl World {
    pub(super) fn note_sessions(&mut self, tick: u64) {
        let incarnations = self.clients.iter().map(|client| client.incarnation);
        self.shares.note_sessions(incarnations, tick);
    }

    /// Lets everything come to rest: a backlog must not wait while a member is there to take it.
    pub(super) fn rest(&mut self) -> Result<(), Broken> {
        if self.is_failing {
            return Ok(());
        }
        self.tell(|| "---- rest ----".to_owned());
        self.journal.inner.set_room(None);
        // A client may leave again when it sees what it has got.
        for _ in 0..4 {
            self.cut_abandoned()?;
            self.settle()?;
        }
        self.judge_shares(false)
    }

    /// The broker notices every client that has gone away, also one whose next connection was refused.
    pub(super) fn cut_abandoned(&mut self) -> Result<(), Broken> {
        for index in self.open_links() {
            let is_current = self.clients[self.links[index].client].link == Some(index);
            if self.links[index].is_abandoned || !is_current {
                self.cut_link(index)?;
            }
        }
        Ok(())
    }

    pub(super) fn judge_shares(&mut self, is_final: bool) -> Result<(), Broken> {
        let tick = self.tick;
        self.note_sessions(tick);
        let standings: Vec<_> = self
            .clients
            .iter()
            .map(|client| Standing {
                incarnation: client.incarnation,
                is_online: client.is_online,
                link: client.link,
                is_durable: client.kind == Kind::Durable,
                may_persist: client.kind != Kind::Clean,
            })
            .collect();
        self.shares.rest(&standings);
        if self.excuses.drops_by_policy || self.sharing != Sharing::Yes {
            return Ok(());
        }
        self.shares
            .judge_losses(&self.ledger.published, &standings, is_final)
    }

    /// A client reads a message of one of its groups.
    pub(super) fn deliver_shared(
        &mut self,
        number: usize,
        publish: &Publish<'_>,
        message: usize,
        is_refused: bool,
    ) -> Result<(), Broken> {
        let tick = self.tick;
        self.note_sessions(tick);
        let client = &self.clients[number];
        let Some(link) = client.link else {
            return Ok(());
        };
        let receipt = Receipt {
            publish: message,
            client: number,
            incarnation: client.incarnation,
            link,
            is_clean: client.asked.expiry_s == 0,
            is_durable: client.kind == Kind::Durable,
            qos: publish.qos,
            retain: publish.retain,
            is_refused,
            tick,
            is_done: false,
        };
        let links = &self.links;
        // A connection is over, too, once a later one of the same client was accepted.
        let is_over = |index: usize| {
            let mut later = links[index + 1..].iter();
            links[index].is_finished
                || later.any(|link| link.client == links[index].client && link.accepted)
        };
        self.shares
            .deliver(receipt, &self.ledger.published[message], is_over)
    }
}
