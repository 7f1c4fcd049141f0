//! Shared subscriptions: sessions join and leave groups, and what a session leaves behind goes to the other members.
//!
//! Invariants: the callers hold the session's lock. A group is in the router while it has members. Does not know: packets,
//! how a group chooses.

use super::Broker;
use super::subscribe::Wish;
use crate::action::QueueId;
use crate::counters::Tally;
use crate::image::Image;
use crate::limits::Limits;
use crate::mailbox::{GivingUp, Mailbox};
use crate::message::ClientId;
use crate::router::Router;
use crate::session::{Session, SessionState};
use crate::share_group::{Joining, ShareGroup};
use crate::sync::{read, write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Broker {
    /// Makes the session a member of the group of `wish`, a shared subscription. Under the router's lock, so that the
    /// group does not end between the two.
    pub(super) fn join(&self, session: &Session, state: &mut SessionState, wish: Wish<'_>) {
        let mut router = write(&self.router);
        let group = self.group(&mut router, wish.filter);
        let joining = Joining {
            mailbox: session.mailbox(),
            options: wish.options,
            subscription_id: wish.subscription_id,
            is_online: state.is_connected,
            is_durable: session.mailbox().is_durable(),
        };
        if group.join(joining, self.journal()) {
            state.groups.push(group);
        }
    }

    fn group(&self, router: &mut Router, filter: &str) -> Arc<ShareGroup> {
        if let Some(group) = router.group(filter) {
            return group.clone();
        }
        let queue = QueueId::share_group(self.next_queue.fetch_add(1, Ordering::Relaxed));
        let limits = self.limits();
        let backlog = Mailbox::new(queue, ClientId::new(filter), &limits);
        let group = ShareGroup::new(filter, backlog, limits.share_strategy);
        router.add_group(group.clone());
        group
    }

    /// Takes the session out of the group of `filter`.
    pub(super) fn leave(
        &self,
        session: &Session,
        state: &mut SessionState,
        filter: &str,
        tally: &mut Tally,
    ) {
        let place = state
            .groups
            .iter()
            .position(|group| group.filter() == filter);
        let Some(group) = place.map(|place| state.groups.swap_remove(place)) else {
            return;
        };
        // What it was given goes to the others; without others it still gets it, as after any other UNSUBSCRIBE.
        if !self.leave_group(session, &group, tally) {
            self.give_up_shared(session, GivingUp::Unsubscribed(&group), tally);
        }
    }

    /// `true` when it was the last member.
    fn leave_group(&self, session: &Session, group: &Arc<ShareGroup>, tally: &mut Tally) -> bool {
        let mut router = write(&self.router);
        let is_last = group.leave(session.queue(), self.journal(), tally);
        if is_last {
            router.remove_group(group);
        }
        is_last
    }

    /// The session's connection begins: its groups count on it.
    pub(super) fn come_online(&self, session: &Session, state: &SessionState, is_durable: bool) {
        for group in &state.groups {
            group.set_online(session.queue(), true, is_durable, self.journal());
        }
    }

    /// The session's connection ends: its groups give what it has not had to others.
    pub(super) fn go_offline(&self, session: &Session, state: &SessionState, tally: &mut Tally) {
        let is_durable = session.mailbox().is_durable();
        for group in &state.groups {
            group.set_online(session.queue(), false, is_durable, self.journal());
        }
        let scope = GivingUp::Disconnected(self.limits().share_redispatch);
        self.give_up_shared(session, scope, tally);
    }

    /// The session ends: it leaves its groups.
    pub(super) fn leave_all(&self, session: &Session, state: &mut SessionState, tally: &mut Tally) {
        for group in &std::mem::take(&mut state.groups) {
            self.leave_group(session, group, tally);
        }
        self.give_up_shared(session, GivingUp::Ended, tally);
    }

    /// Also what came from groups that it has left before: its end must not be theirs.
    fn give_up_shared(&self, session: &Session, scope: GivingUp<'_>, tally: &mut Tally) {
        let leaving = session.mailbox().give_up_shared(scope);
        for (group, returned) in leaving.returned {
            group.take_back(returned, self.journal());
        }
        for left in leaving.volatile {
            let barrier = left.barrier.as_ref();
            left.group.pass_on(&left.message, barrier, tally);
        }
    }

    /// Makes the groups that the store has; their members join with their sessions.
    pub(super) fn restore_groups(&self, image: &mut Image) {
        let is_group = |queue: &QueueId| queue.is_share_group();
        let queues: Vec<_> = image
            .subscriptions
            .keys()
            .copied()
            .filter(is_group)
            .collect();
        for queue in queues {
            let filters = image.subscriptions.remove(&queue).unwrap_or_default();
            let mut stored = image.queues.remove(&queue).unwrap_or_default();
            for filter in filters.into_keys() {
                let limits = self.limits();
                // Nothing was sent from the backlog itself.
                let sent_below = Some(0);
                let backlog = Mailbox::restored(
                    queue,
                    ClientId::new(&filter),
                    &limits,
                    std::mem::take(&mut stored.refs),
                    stored.next_sequence,
                    sent_below,
                );
                let group = ShareGroup::new(&filter, backlog, limits.share_strategy);
                group.restore_durable();
                write(&self.router).add_group(group);
            }
        }
    }

    /// Ends the restored groups that no session shares: the process ended between the two records.
    pub(super) fn end_empty_groups(&self) {
        let mut router = write(&self.router);
        let mut groups: Vec<_> = router.groups().cloned().collect();
        // The order of their records must not depend on how the map hashes.
        groups.sort_unstable_by_key(|group| group.queue());
        for group in groups {
            if group.end_if_empty(self.journal()) {
                router.remove_group(&group);
            }
        }
    }

    /// Changes the limits of the groups' backlogs.
    pub(super) fn set_group_limits(&self, limits: &Limits) {
        let groups: Vec<_> = read(&self.router).groups().cloned().collect();
        for group in groups {
            group.set_limits(limits);
        }
    }

    /// Messages that wait in share groups, and their bytes.
    pub(super) fn groups_depth(&self) -> (usize, usize) {
        let groups: Vec<_> = read(&self.router).groups().cloned().collect();
        groups
            .iter()
            .map(|group| group.depth())
            .fold((0, 0), |sum, depth| (sum.0 + depth.0, sum.1 + depth.1))
    }
}
