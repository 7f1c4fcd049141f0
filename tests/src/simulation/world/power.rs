//! The journal's pace, virtual time, and power loss.

use super::*;

impl World {
    pub(super) fn move_journal(&mut self) {
        match self.dice.below(4) {
            0 => {
                let count = self.dice.pick(&[1, 2, 5, 100]);
                let begun = self.journal.inner.begin_commit(count);
                self.tell(|| format!("commit of {begun} begins"));
            }
            1 | 2 => {
                self.tell(|| "commit ends".to_owned());
                self.journal.end_commit();
                if self.dice.chance(30) {
                    self.journal.inner.sync();
                }
            }
            _ => {
                let answered = self.journal.inner.answer_read();
                self.tell(|| format!("backlog read: {answered}"));
            }
        }
    }

    pub(super) fn change_room(&mut self) {
        if self.is_failing || self.traffic == Traffic::Volatile {
            return;
        }
        match self.dice.below(40) {
            0 => {
                self.excuses.refusals = true;
                self.tell(|| "the disk is full".to_owned());
                self.journal.inner.set_room(Some(Room::Full));
            }
            1..5 => {
                self.tell(|| "the journal is congested".to_owned());
                self.journal.inner.set_room(Some(Room::Congested));
            }
            _ => {
                self.journal.inner.set_room(None);
                self.journal.end_commit();
            }
        }
    }

    pub(super) fn pass_time(&mut self) -> Result<(), Broken> {
        let ms = match self.dice.below(20) {
            0 => self.dice.between(5_000, 90_000),
            1..6 => self.dice.between(1_000, 5_000),
            _ => self.dice.between(1, 999),
        };
        self.advance(ms as u64)
    }

    /// Time passes, with a stop at each of the broker's deadlines.
    pub(super) fn advance(&mut self, ms: u64) -> Result<(), Broken> {
        let target = self.now + Duration::from_millis(ms);
        let early = if self.fault == Fault::TimersEarly {
            2_000
        } else {
            0
        };
        let mut stops = 0;
        while self.fault != Fault::TimersDead
            && let Some(at) = self.broker.poll_timeout()
            && at.as_ms() <= target.as_ms() + early
        {
            self.now = self.now.max(at.min(target));
            self.tell(|| "the broker's timer".to_owned());
            self.broker
                .handle_timeout(self.now + Duration::from_millis(early));
            stops += 1;
            if stops > 1000 {
                return broken(
                    Rule::Stalled,
                    format!("the broker's deadline {at:?} does not go away"),
                );
            }
        }
        self.now = target;
        Ok(())
    }

    pub(super) fn crash(&mut self) {
        if !self.is_failing && self.dice.chance(250) {
            let failure = self.dice.pick(&[
                JournalFailure::Unknown,
                JournalFailure::Fenced,
                JournalFailure::Unavailable,
            ]);
            self.tell(|| format!("the journal fails: {failure:?}"));
            self.is_failing = true;
            self.journal.fail(failure);
            return;
        }
        let survivors = self.dice.below(6);
        self.restart(survivors);
    }

    pub(super) fn restart(&mut self, survivors: usize) {
        let tick = self.next_tick();
        self.counts.crashes += 1;
        self.excuses.crashes += 1;
        self.shares.crashed(tick);
        self.is_failing = false;
        let disk = self.journal.lose_power(survivors);
        let pause_ms = self.dice.pick(&[0, 10, 3000]);
        self.now = self.now + Duration::from_millis(pause_ms);
        let now_ms = self.now.as_ms();
        self.tell(|| format!("power is lost, {survivors} records survive"));
        for index in self.open_links() {
            self.links[index].kill();
            self.links[index].down.clear();
            self.close_ledger(index, tick);
        }
        for number in 0..self.clients.len() {
            self.clients[number].cut();
            self.crash_will(number, tick, now_ms);
            self.lives[number].crash(now_ms);
        }
        self.boot += 1;
        let image = disk.image();
        self.journal = Saboteur::new(self.fault, disk);
        self.broker = Broker::new(
            self.limits.clone(),
            self.journal.clone(),
            image,
            self.boot,
            self.now,
        );
    }

    /// What a crash means for a client's wills.
    pub(super) fn crash_will(&mut self, number: usize, tick: u64, now_ms: u64) {
        let life = &self.lives[number];
        let is_connected = life.link.is_some();
        let is_kept = life.is_confirmed() && life.expiry_s() > 0;
        let last = self.last_will[number];
        for (index, will) in self.ledger.wills.iter_mut().enumerate() {
            if will.client != number {
                continue;
            }
            match will.fate {
                // What cancelled it may be undone: a DISCONNECT is not confirmed, a CONNECT perhaps not yet.
                WillFate::Forbidden if !life.is_confirmed() || last == Some(index) => {
                    will.fate = WillFate::Open;
                    will.due_ms = Some(0);
                }
                // It may be published again, its delay counted anew.
                WillFate::Required if will.is_kept => {
                    let delayed = now_ms + u64::from(will.delay_s) * 1000;
                    will.owed_ms = will.owed_ms.map(|owed| owed.max(delayed));
                    // The expiry that DISCONNECT set may be lost, too.
                    let sooner = now_ms + u64::from(will.delay_s.min(will.expiry_s)) * 1000;
                    will.due_ms = will.due_ms.map(|due| due.min(sooner));
                }
                WillFate::Required => will.fate = WillFate::Open,
                _ => {}
            }
        }
        if let (true, Some(will)) = (is_connected, last) {
            let will = &mut self.ledger.wills[will];
            let due = now_ms + u64::from(will.delay_s.min(life.expiry_s())) * 1000;
            will.ended = Some(tick);
            will.is_kept = is_kept;
            will.fate = if is_kept {
                WillFate::Required
            } else {
                WillFate::Open
            };
            will.due_ms = Some(due);
            will.owed_ms = Some(due);
        }
    }
}
