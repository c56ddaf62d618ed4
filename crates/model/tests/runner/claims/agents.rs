//! Agents: what they hold, until when, and what they still have to say.

use super::{Bounds, LEASE, Message, Rules, Run, Step, Token, Who};

/// A claim that an agent knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) job: u8,
    token: Token,
    /// Its program stands still from then on, unless a renewal moves it.
    deadline: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Agent {
    pub(super) run: Run,
    asked: u8,
    /// The request that is not answered yet.
    pending: Option<(Run, u8)>,
    held: Option<Held>,
}

impl Agent {
    pub(super) const fn new(who: Who) -> Self {
        Self {
            run: (who, 0),
            asked: 0,
            pending: None,
            held: None,
        }
    }

    pub(super) fn steps(&self, now: u8, bounds: &Bounds, steps: &mut Vec<Step>) {
        let who = self.run.0;
        match self.held {
            None if self.pending.is_none() && self.asked < bounds.asks => {
                steps.extend((0..bounds.jobs).map(|job| Step::Ask(who, job)));
            }
            None => {}
            Some(held) => {
                if now + LEASE > held.deadline {
                    steps.push(Step::Renew(who));
                }
                if now < held.deadline {
                    steps.push(Step::Finish(who, true));
                }
                if now < held.deadline && bounds.failures {
                    steps.push(Step::Finish(who, false));
                }
            }
        }
    }

    /// What its program does, if one executes.
    pub(super) fn executes(&self, now: u8) -> Option<Held> {
        self.held.filter(|held| now < held.deadline)
    }

    pub(super) fn ask(&mut self, job: u8, now: u8) -> Message {
        let nonce = (self.run, self.asked);
        self.asked += 1;
        self.pending = Some(nonce);
        Message::Claim {
            nonce,
            job,
            sent: now,
        }
    }

    pub(super) fn renewal(&self, now: u8) -> Option<Message> {
        let Held { job, token, .. } = self.held?;
        Some(Message::Renew {
            run: self.run,
            job,
            token,
            sent: now,
        })
    }

    /// The program is over; its finish is in the outbox, from where it goes out again and again.
    pub(super) fn finish(&mut self, well: bool) -> Option<Message> {
        let Held { job, token, .. } = self.held.take()?;
        Some(Message::Finish { job, token, well })
    }

    /// Its programs die with it; its outbox stays.
    pub(super) fn crash(&mut self) {
        self.run.1 += 1;
        self.pending = None;
        self.held = None;
    }

    /// Whether a message is for something it waits for or holds.
    pub(super) fn awaits(&self, message: &Message) -> bool {
        let holds = |token| self.held.filter(|held| held.token == token);
        match *message {
            Message::Granted { token, .. } => self.pending == Some(token.nonce),
            Message::Renewed { token, sent, .. } => {
                holds(token).is_some_and(|held| held.deadline < sent + LEASE)
            }
            Message::Lost { token, .. } => holds(token).is_some(),
            _ => false,
        }
    }

    pub(super) fn hear(&mut self, message: Message, now: u8, rules: &Rules) {
        let until = |sent| match rules.from_sent {
            true => sent + LEASE,
            false => now + LEASE,
        };
        match message {
            Message::Granted { job, token, sent } => {
                self.pending = None;
                self.held = Some(Held {
                    job,
                    token,
                    deadline: until(sent),
                });
            }
            Message::Renewed { sent, .. } => {
                if let Some(held) = &mut self.held {
                    held.deadline = until(sent);
                }
            }
            Message::Lost { .. } => self.held = None,
            _ => {}
        }
    }
}
