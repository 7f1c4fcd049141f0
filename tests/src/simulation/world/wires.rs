//! Bytes that arrive, drivers that run, connections that begin and end; and what that means for sessions and wills.

use super::*;

impl World {
    pub(super) fn open_links(&self) -> Vec<usize> {
        (0..self.links.len())
            .filter(|index| !self.links[*index].is_finished)
            .collect()
    }

    pub(super) fn deliver_up(&mut self) -> Result<(), Broken> {
        let busy: Vec<_> = self
            .open_links()
            .into_iter()
            .filter(|index| !self.links[*index].up.is_empty())
            .collect();
        if busy.is_empty() {
            return Ok(());
        }
        let index = busy[self.dice.below(busy.len())];
        let count = if self.dice.chance(500) {
            usize::MAX
        } else {
            self.dice.between(1, 60)
        };
        self.links[index].arrive(count);
        self.run_link(index)
    }

    pub(super) fn run_woken(&mut self) -> Result<(), Broken> {
        let woken: Vec<_> = self
            .open_links()
            .into_iter()
            .filter(|index| self.links[*index].is_woken())
            .collect();
        if woken.is_empty() {
            return Ok(());
        }
        let index = woken[self.dice.below(woken.len())];
        self.run_link(index)
    }

    pub(super) fn run_link(&mut self, index: usize) -> Result<(), Broken> {
        if self.fault == Fault::WakeUpsLost && self.links[index].is_woken() && self.dice.chance(200)
        {
            self.links[index].oversleep();
            return Ok(());
        }
        let mut around = surroundings(&self.broker, &mut self.dice, self.now, self.fault);
        let ran = self.links[index].run(&mut around)?;
        if ran.accepted {
            self.accepted(index);
        }
        if let Some(close) = ran.finished {
            self.finished(index, Some(&close));
        }
        Ok(())
    }

    /// The broker notices that a client has vanished, at any byte of what it had written.
    pub(super) fn cut_something(&mut self) -> Result<(), Broken> {
        let gone: Vec<_> = self
            .open_links()
            .into_iter()
            .filter(|index| self.links[*index].is_abandoned)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let index = gone[self.dice.below(gone.len())];
        self.cut_link(index)
    }

    pub(super) fn cut_link(&mut self, index: usize) -> Result<(), Broken> {
        let length = self.links[index].up.len();
        let count = if self.dice.chance(500) {
            length
        } else {
            self.dice.below(length + 1)
        };
        self.links[index].arrive(count);
        self.run_link(index)?;
        if !self.links[index].is_finished {
            let mut around = surroundings(&self.broker, &mut self.dice, self.now, self.fault);
            self.links[index].finish(&mut around);
            self.finished(index, None);
        }
        Ok(())
    }

    pub(super) fn accepted(&mut self, index: usize) {
        let number = self.links[index].client;
        let asked = self.asked[index].clone();
        let now_ms = self.now.as_ms();
        let tick = self.next_tick();
        let life = &self.lives[number];
        let expected = life.expected(asked.clean_start, now_ms);
        let is_takeover = life.link.is_some();
        let old_expiry_s = life.expiry_s();
        let is_kept = life.is_confirmed() && old_expiry_s > 0;
        self.expected_present[index] = expected;
        // A crash may have brought back wills of earlier connections; this one cancels them, or comes too late.
        for (index, will) in self.ledger.wills.iter_mut().enumerate() {
            let is_pending =
                will.owed_ms.is_some_and(|owed| owed > now_ms) && will.fate == WillFate::Required;
            if will.client == number && self.last_will[number] != Some(index) && is_pending {
                will.fate = WillFate::Open;
            }
        }
        if is_takeover {
            let may_end = self.clients[number].kind != Kind::Durable;
            self.shares.link_ended(number, may_end, tick);
        }
        if let Some(old) = self.last_will[number].take() {
            let will = &mut self.ledger.wills[old];
            let goes_on = if is_takeover {
                Some(!asked.clean_start && old_expiry_s > 0)
            } else {
                expected
            };
            if is_takeover {
                will.ended = Some(tick);
                will.is_kept = is_kept;
                let is_due = goes_on == Some(false) || will.delay_s == 0;
                will.fate = if is_due {
                    WillFate::Required
                } else {
                    WillFate::Forbidden
                };
                will.due_ms = Some(now_ms);
                will.owed_ms = Some(now_ms);
            } else if will.fate == WillFate::Required
                && will.owed_ms.is_some_and(|owed| owed > now_ms)
            {
                let is_maybe_out = will.due_ms.is_some_and(|due| due <= now_ms);
                match goes_on {
                    Some(true) if is_maybe_out => will.fate = WillFate::Open,
                    Some(true) => will.fate = WillFate::Forbidden,
                    Some(false) if asked.clean_start => {
                        will.due_ms = will.due_ms.map(|due| due.min(now_ms));
                        will.owed_ms = Some(now_ms);
                    }
                    _ => {
                        will.fate = WillFate::Open;
                        will.due_ms = will.due_ms.map(|due| due.min(now_ms));
                    }
                }
            } else if will.fate == WillFate::Open {
                will.due_ms = will.due_ms.map(|due| due.min(now_ms));
            }
        }
        if expected != Some(true)
            && !asked.clean_start
            && self.clients[number].stale_since.is_none()
        {
            self.clients[number].stale_since = Some(index);
        }
        self.lives[number].accept(index, asked.expiry_s);
        self.last_will[number] = asked.will;
        self.tell(|| {
            format!("link {index} of c{number} is accepted, session present should be {expected:?}")
        });
    }

    pub(super) fn finished(&mut self, index: usize, close: Option<&Close>) {
        let tick = self.next_tick();
        let number = self.links[index].client;
        let now_ms = self.now.as_ms();
        self.tell(|| format!("link {index} of c{number} ended: {close:?}"));
        self.close_ledger(index, tick);
        let may_end = self.clients[number].kind != Kind::Durable;
        self.shares.link_ended(number, may_end, tick);
        let is_held = self.lives[number].link == Some(index);
        let left = match close {
            Some(Close::Normal | Close::NormalWithWill) => self.leaving[index],
            _ => None,
        };
        if is_held {
            self.lives[number].finish(index, left.and_then(|leaving| leaving.expiry_s), now_ms);
            if let Some(will) = self.last_will[number] {
                let expiry_s = self.lives[number].expiry_s();
                let will = &mut self.ledger.wills[will];
                will.ended = Some(tick);
                will.is_kept =
                    self.lives[number].is_confirmed() && self.lives[number].was_durable();
                if matches!(close, Some(Close::Normal)) {
                    will.fate = WillFate::Forbidden;
                } else {
                    let due = now_ms + u64::from(will.delay_s.min(expiry_s)) * 1000;
                    will.fate = WillFate::Required;
                    will.due_ms = Some(due);
                    will.owed_ms = Some(due);
                }
            }
        }
    }

    pub(super) fn close_ledger(&mut self, index: usize, tick: u64) {
        for publish in std::mem::take(&mut self.carried[index]) {
            self.ledger.published[publish].over = Some(tick);
        }
    }
}
