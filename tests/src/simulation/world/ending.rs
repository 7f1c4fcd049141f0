//! The last phase: everybody comes back and drains, and the ledger judges.

use super::*;

impl World {
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        self.tell(|| "---- the final phase ----".to_owned());
        if self.traffic == Traffic::Volatile {
            self.settle()?;
            if self.journal.inner.image() != Image::default() {
                return broken(
                    Rule::NeedlessRecord,
                    format!("{:?}", self.journal.inner.image()),
                );
            }
        } else if self.is_failing || self.dice.chance(500) {
            let survivors = self.dice.below(20);
            self.restart(survivors);
        }
        self.journal.inner.set_room(None);
        self.cut_abandoned()?;
        for _ in 0..4 {
            self.settle()?;
            for number in 0..self.clients.len() {
                if self.clients[number].link.is_none() && self.clients[number].kind == Kind::Durable
                {
                    self.connect(number);
                }
            }
            self.settle()?;
            self.cut_abandoned()?;
            // Wills that are due by now are published; sessions of clients that stay away may expire.
            self.advance(30_000)?;
        }
        self.settle()?;
        self.judge()
    }

    /// Runs everything until nothing moves, without time passing.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..100_000 {
            let before = self.tick;
            let mut moved = false;
            for index in self.open_links() {
                if !self.links[index].up.is_empty() {
                    self.links[index].arrive(usize::MAX);
                    moved = true;
                }
                if self.links[index].is_woken() {
                    self.run_link(index)?;
                    moved = true;
                }
            }
            for number in 0..self.clients.len() {
                while self.read_one(number)? {
                    moved = true;
                }
                self.acknowledge(number, 1000);
            }
            moved |= self.journal.inner.begin_commit(1000) > 0;
            self.journal.end_commit();
            self.journal.inner.sync();
            moved |= self.journal.inner.answer_read();
            moved |= self.links.iter().any(Link::is_woken);
            if !moved && self.tick == before {
                return self.check_stalled();
            }
        }
        broken(Rule::Stalled, "the broker never comes to rest".to_owned())
    }

    pub(super) fn check_stalled(&self) -> Result<(), Broken> {
        for (number, client) in self.clients.iter().enumerate() {
            if client.link.is_some() && !client.is_online {
                return broken(Rule::Stalled, format!("client {number} gets no CONNACK"));
            }
            if client.is_online && !client.expected.is_empty() {
                return broken(
                    Rule::Stalled,
                    format!("client {number} waits for {:?}", client.expected),
                );
            }
            // After a crash nobody knows what was sent: what has expired or was dropped by policy since is not finished.
            let may_be_left = |publish: &usize| {
                let expires = self
                    .ledger
                    .published
                    .get(*publish)
                    .is_none_or(|message| message.expiry_s.is_some());
                self.excuses.crashes > 0 && (expires || self.excuses.drops_by_policy)
            };
            if client.is_online && !client.inbound.values().all(may_be_left) {
                return broken(
                    Rule::Stalled,
                    format!("client {number} waits for PUBREL: {:?}", client.inbound),
                );
            }
        }
        Ok(())
    }

    pub(super) fn judge(&mut self) -> Result<(), Broken> {
        let finals: Vec<_> = self
            .clients
            .iter()
            .map(|client| Final {
                incarnation: client.incarnation,
                is_drained: client.is_online,
            })
            .collect();
        self.judge_shares(true)?;
        self.ledger.judge(&finals, &self.excuses)?;
        self.ledger
            .judge_wills(WATCHER, &finals, self.now.as_ms(), &self.excuses)?;
        if self.traffic == Traffic::Mixed && !self.excuses.drops_by_policy {
            self.judge_retained()?;
        }
        Ok(())
    }

    /// A new clean subscriber looks at the retained messages.
    pub(super) fn judge_retained(&mut self) -> Result<(), Broken> {
        let number = self.clients.len();
        self.clients
            .push(Client::new(number, ProtocolVersion::V5, Kind::Clean));
        self.lives.push(Life::default());
        self.last_will.push(None);
        let first = self.ledger.delivered.len();
        self.connect(number);
        self.settle()?;
        self.send_subscribe(number, vec![("r/#".to_owned(), QoS::AtLeastOnce)]);
        self.settle()?;
        for topic in RETAINED_TOPICS {
            let seen: Vec<_> = self.ledger.delivered[first..]
                .iter()
                .filter(|delivered| delivered.client == number)
                .map(|delivered| &self.ledger.published[delivered.publish])
                .filter(|message| message.topic == topic)
                .map(|message| message.payload.clone())
                .collect();
            if seen.len() > 1 {
                return broken(Rule::Retained, format!("{topic} twice: {seen:?}"));
            }
            self.ledger
                .judge_retained(topic, seen.first().map(String::as_str))?;
        }
        Ok(())
    }
}
