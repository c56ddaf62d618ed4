//! A job's view as observations for [`mutual_model::history`].
//!
//! A store knows of each attempt who held it, under which fence, from when until when, and how it
//! ended. That is what its calls must have been, within the store's millisecond. What a view does
//! not tell (renewals, repeats, what was refused) is left out, and so is judged by nobody.

use mutual_model::history::{Answer, Deed, Digest, Finish, Granted, Ground, Observation};
use mutual_model::ids::{Namespace, Nonce};
use mutual_model::job::JobState;
use mutual_model::lease::Claim;
use mutual_model::receipt::vouching;
use mutual_model::time::{Timestamp, UnixMillis};

use crate::deeds;
use crate::rules::digest;
use crate::{Attempt, AttemptEnd, JobView};

/// When and by whom views were looked at.
#[derive(Debug, Clone)]
pub struct Look {
    /// The store's clock at the origin of the history's time.
    pub origin: UnixMillis,
    /// When the view was asked for.
    pub called: Timestamp,
    /// When it was there.
    pub returned: Timestamp,
    /// Namespaces of whoever asked.
    pub seen_by: Vec<Namespace>,
    /// On what ground the run's verdicts were passed; a view does not say.
    pub ground: Option<Ground>,
}

impl JobView {
    /// What must have happened that the store shows this: the claims and ends of the attempts it
    /// still lists, and the look itself. A repeated look gives the same claims again.
    ///
    /// Nonces are not shown, so each claim has one made from its fence: do not mix these claims with
    /// observed ones of the same job in one history.
    pub fn observations(&self, look: &Look) -> Vec<Observation> {
        let attempts = self.attempts.iter();
        let mut observations: Vec<_> = attempts
            .flat_map(|attempt| {
                let end = self.end_of(attempt, look);
                [Some(self.claim_of(attempt, look)), end]
            })
            .flatten()
            .collect();
        observations.push(Observation {
            called: look.called,
            returned: look.returned,
            deed: deeds::seen(&look.seen_by, self),
        });
        observations
    }

    fn result_digest(&self) -> Option<Digest> {
        let digest = digest::result(self.result.as_ref()?);
        digest.ok().map(Digest)
    }

    fn claim_of(&self, attempt: &Attempt, look: &Look) -> Observation {
        let claim = self.claim(attempt);
        let granted = Granted {
            claim,
            resume: Vec::new(),
        };
        let deed = Deed::Claim {
            holder: attempt.holder,
            nonce: claim.nonce,
            answer: Answer::Done(vec![granted]),
        };
        during(attempt.claimed_at, look, deed)
    }

    fn claim(&self, attempt: &Attempt) -> Claim {
        let fence = attempt.fence;
        let nonce = (u128::from(fence.epoch) << 64) | u128::from(fence.sequence);
        Claim {
            job: self.id,
            fence,
            nonce: Nonce(nonce.to_be_bytes()),
        }
    }

    fn end_of(&self, attempt: &Attempt, look: &Look) -> Option<Observation> {
        let claim = self.claim(attempt);
        let deed = match attempt.end? {
            AttemptEnd::Succeeded | AttemptEnd::Failed => self.finish_of(attempt),
            AttemptEnd::Released => Deed::Release {
                claim,
                answer: Answer::Done(()),
            },
            AttemptEnd::LeaseExpired => Deed::Requeue {
                answer: Answer::Done(vec![self.id]),
            },
            AttemptEnd::Revoked => Deed::Revoke {
                agent: attempt.holder.agent,
                incarnation: attempt.holder.incarnation,
                ground: look.ground,
                answer: Answer::Done(true),
            },
            AttemptEnd::Cancelled => Deed::Cancel {
                job: self.id,
                answer: Answer::Done(JobState::Cancelled),
            },
        };
        Some(during(attempt.ended_at?, look, deed))
    }

    /// A finish that left the job's result, or one after which it was queued again.
    fn finish_of(&self, attempt: &Attempt) -> Deed {
        let success = attempt.end == Some(AttemptEnd::Succeeded);
        let is_last = self.attempts.last() == Some(attempt);
        let by_failure = matches!(self.state, JobState::Failed | JobState::TimedOut);
        let ended = success || (is_last && by_failure);
        let state = match (success, ended) {
            (true, _) => JobState::Succeeded,
            (false, true) => self.state,
            (false, false) => JobState::Queued,
        };
        let result = self.result_digest().filter(|_| ended);
        let claim = self.claim(attempt);
        let own = Digest(*blake3::hash(claim.nonce.as_bytes()).as_bytes());
        Deed::Finish(Finish {
            claim,
            digest: result.unwrap_or(own),
            result: result.unwrap_or(own),
            success,
            copies: self.copies(attempt),
            copies_needed: self.spec.result_copies,
            answer: Answer::Done((ended, state)),
        })
    }

    /// Peers other than the holder that vouch for the output.
    fn copies(&self, attempt: &Attempt) -> u32 {
        let output = self
            .result
            .as_ref()
            .and_then(|result| result.output.as_ref());
        let vouching = output.map_or(0, |output| {
            vouching(&output.receipts, &output.root, &attempt.holder.agent)
        });
        u32::try_from(vouching).unwrap_or(u32::MAX)
    }
}

/// An observation of something that the store did within one of its milliseconds.
fn during(at: UnixMillis, look: &Look, deed: Deed) -> Observation {
    let called = Timestamp::ZERO.after(at.since(look.origin));
    Observation {
        called,
        returned: Timestamp(called.0.saturating_add(999)),
        deed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use futures::executor::block_on;
    use mutual_model::history::{self, Summary};
    use mutual_model::identity::NodeKey;
    use mutual_model::ids::Incarnation;
    use mutual_model::job::{Failure, IsolationClass, TaskSpec};
    use mutual_model::matching::Offer;
    use mutual_model::resources::Resources;

    use super::*;
    use crate::memory::MemoryStore;
    use crate::{
        ClaimRequest, ClaimScope, DemandStore, FinishRequest, ManualClock, Metrics, Outcome,
        Principal, ResultView, Right, StoreConfig, Submission,
    };

    const ORIGIN: UnixMillis = UnixMillis(1_800_000_000_000);

    struct Stand {
        clock: Arc<ManualClock>,
        store: MemoryStore,
        who: Principal,
    }

    impl Stand {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(ORIGIN));
            let config = StoreConfig {
                clock: clock.clone(),
                ..StoreConfig::default()
            };
            let key = NodeKey::from_seed(&[1; 32]);
            Self {
                clock,
                store: MemoryStore::new(config, 1).unwrap(),
                who: Principal {
                    subject: "all in one".into(),
                    node: Some(key.id()),
                    sealing: key.sealing_public(),
                    namespaces: vec!["lab".parse().unwrap()],
                    rights: vec![Right::Read, Right::Submit, Right::Work, Right::Operate],
                },
            }
        }

        fn submit(&self) {
            let mut spec = TaskSpec::new(
                vec!["true".into()],
                Resources {
                    cpu_millis: 1,
                    memory_bytes: 64 << 20,
                    ..Resources::ZERO
                },
            );
            spec.result_copies = 0;
            let task = Submission {
                namespace: "lab".parse().unwrap(),
                client_key: "one".parse().unwrap(),
                spec,
                result_key: None,
                input: None,
            };
            block_on(self.store.submit(&self.who, vec![task])).unwrap();
        }

        fn claim(&self, nonce: u8) -> Claim {
            let request = ClaimRequest {
                incarnation: Incarnation(uuid::Uuid::from_u128(1)),
                nonce: Nonce([nonce; 16]),
                scope: ClaimScope::Any,
                offer: Offer {
                    free: Resources {
                        cpu_millis: 1,
                        memory_bytes: 64 << 20,
                        ..Resources::ZERO
                    },
                    slots: 1,
                    classes: IsolationClass::ALL.to_vec(),
                    labels: BTreeMap::new(),
                },
                agent_url: String::new(),
            };
            let reply = block_on(self.store.try_claim(&self.who, request)).unwrap();
            self.clock.advance(Duration::from_millis(5));
            reply.grants[0].claim
        }

        fn finish(&self, claim: Claim, outcome: Outcome) {
            let result = ResultView {
                output: None,
                artifacts: Vec::new(),
                log: None,
                metrics: Metrics::default(),
            };
            let finish = FinishRequest {
                claim,
                outcome,
                result,
            };
            block_on(self.store.finish(&self.who, finish)).unwrap();
            self.clock.advance(Duration::from_millis(5));
        }

        fn observations(&self) -> Vec<Observation> {
            let look = Look {
                origin: ORIGIN,
                called: Timestamp(60_000_000),
                returned: Timestamp(60_000_001),
                seen_by: self.who.namespaces.clone(),
                ground: None,
            };
            let page = block_on(self.store.jobs(&self.who, &crate::JobFilter::default())).unwrap();
            page.jobs
                .iter()
                .flat_map(|view| view.observations(&look))
                .collect()
        }
    }

    /// A failure, an expired lease and a success, told twice.
    fn life() -> Vec<Observation> {
        let stand = Stand::new();
        stand.submit();
        let failure = Failure::ExitCode { code: 1 };
        stand.finish(stand.claim(1), Outcome::Failure(failure));
        stand.claim(2);
        stand.clock.advance(Duration::from_secs(21));
        block_on(stand.store.requeue(&stand.who, 10)).unwrap();
        stand.finish(stand.claim(3), Outcome::Success);
        let mut told = stand.observations();
        told.extend(stand.observations());
        told
    }

    #[test]
    fn an_ordinary_life_is_told_and_accepted() {
        let told = life();
        let summary = history::check(&told).unwrap();
        let expected = Summary {
            observations: 14,
            claims: 6,
            finishes: 4,
            ..Summary::default()
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn two_holders_at_once_in_an_account_are_found() {
        let mut told = life();
        for observation in &mut told {
            // The second attempt is said to have ended after the third was claimed, by a finish.
            if let Deed::Requeue { .. } = observation.deed {
                let Deed::Finish(mut finish) = told_finish(&life()) else {
                    unreachable!()
                };
                finish.claim.fence.sequence = 2;
                finish.claim.nonce = Nonce([0; 16]);
                observation.called = Timestamp(50_000_000);
                observation.returned = Timestamp(50_000_001);
                observation.deed = Deed::Finish(finish);
            }
        }
        let found = history::check(&told).unwrap_err();
        assert!(
            found.iter().any(|violation| violation.invariant == 3),
            "{found:?}"
        );
        assert!(
            found.iter().any(|violation| violation.invariant == 1),
            "{found:?}"
        );
    }

    fn told_finish(told: &[Observation]) -> Deed {
        let deeds = told.iter().map(|observation| observation.deed.clone());
        let mut finishes = deeds.filter(|deed| matches!(deed, Deed::Finish(f) if f.success));
        finishes.next().unwrap()
    }
}
