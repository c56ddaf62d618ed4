//! What an agent does before its first claim, and how finishes leave its outbox.

use std::time::Duration;

use mutual_demand::{Revocation, StoreError, StoreResult, Verdict};
use mutual_model::agent::{Event, RunKey};
use mutual_model::job::IsolationClass;

use super::calls::{Purpose, finished};
use super::wire::{Place, Reply, Request};
use super::{Slip, Timer, World};

const DELIVER_PAUSE: Duration = Duration::from_millis(50);
const DELIVER_PAUSE_MAX: Duration = Duration::from_secs(1);
const INTRODUCE_PAUSE: Duration = Duration::from_millis(100);

impl World {
    /// Outbox first, then the end of earlier runs, then the first claim.
    pub(super) fn introduce(&mut self, index: usize, tries: u32) {
        let outbox = &self.machines[index].disk.outbox;
        let leftovers: Vec<_> = outbox.iter().map(|(k, f)| (k.clone(), f.clone())).collect();
        if leftovers.is_empty() {
            return self.supersede(index, tries);
        }
        for (key, finish) in leftovers {
            let purpose = Purpose::Leftover(key);
            self.ask(Place::Agent(index), Request::Finish(finish), purpose);
        }
        self.introduce_again(index, tries);
    }

    fn introduce_again(&mut self, index: usize, tries: u32) {
        let pause = INTRODUCE_PAUSE * 2_u32.saturating_pow(tries.min(4));
        let pause = pause + self.up_to(pause / 2) + Duration::from_millis(20);
        self.timer(Place::Agent(index), pause, Timer::Introduce(tries + 1));
    }

    pub(super) fn leftover_answered(
        &mut self,
        index: usize,
        key: &RunKey,
        answer: StoreResult<Reply>,
    ) {
        if !answer.is_err_and(|error| error.is_retryable()) {
            self.machines[index].disk.outbox.remove(key);
        }
    }

    fn supersede(&mut self, index: usize, tries: u32) {
        let nonce = self.nonce();
        let machine = &self.machines[index];
        let Some(life) = &machine.life else { return };
        let verdict = Revocation {
            agent: machine.key.id(),
            incarnation: life.incarnation,
            verdict: Verdict::Superseded,
            silent_ms: 0,
            nonce,
        };
        let purpose = Purpose::Supersede(tries);
        self.ask(Place::Agent(index), Request::Revoke(verdict), purpose);
    }

    pub(super) fn supersede_answered(
        &mut self,
        index: usize,
        tries: u32,
        answer: StoreResult<Reply>,
    ) {
        match answer {
            Ok(_) => {
                self.say_hello(index);
                self.start_guarding(index);
                let Some(life) = &self.machines[index].life else {
                    return;
                };
                let event = Event::StoreAdded {
                    store: self.store.clone(),
                    incarnation: life.incarnation,
                    classes: vec![IsolationClass::Process],
                };
                self.tell(index, event);
            }
            Err(error) => {
                let life = self.machines[index].life.as_ref();
                let current = life.map(|life| life.incarnation);
                if let Some(current) = current.filter(|_| error == StoreError::IncarnationRevoked) {
                    self.renew_incarnation(index, current);
                }
                self.introduce_again(index, tries);
            }
        }
    }

    /// Brings a finish from the outbox to the store.
    pub(super) fn deliver(&mut self, index: usize, key: &RunKey, tries: u32) {
        let finish = self.machines[index].disk.outbox.get(key).cloned();
        let delivers = self.slip != Some(Slip::NeverDeliver);
        if let Some(finish) = finish.filter(|_| delivers) {
            let purpose = Purpose::Finish(key.clone(), tries);
            self.ask(Place::Agent(index), Request::Finish(finish), purpose);
        }
    }

    pub(super) fn finish_answered(
        &mut self,
        index: usize,
        key: RunKey,
        tries: u32,
        answer: StoreResult<Reply>,
    ) {
        match Self::expect(answer, finished) {
            Err(error) if error.is_retryable() => {
                let pause = DELIVER_PAUSE * 2_u32.saturating_pow(tries.min(8));
                let pause = pause.min(DELIVER_PAUSE_MAX) + self.up_to(DELIVER_PAUSE);
                self.timer(Place::Agent(index), pause, Timer::Deliver(key, tries + 1));
            }
            _ => {
                self.machines[index].disk.outbox.remove(&key);
                self.tell(index, Event::Concluded { key });
            }
        }
    }
}
