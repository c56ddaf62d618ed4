//! Five hundred agents whose store goes away all at once and comes back: they back off, each at its own times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const AGENTS: usize = 500;
/// Seconds of the store's absence.
const AWAY: std::ops::Range<u64> = 30..150;
const END: u64 = 200;
/// How long any answer takes: a refused connection and a good answer alike.
const ANSWER: Duration = Duration::from_millis(1);

/// What happens to whom and when; earliest first.
type Agenda = BinaryHeap<Reverse<(Timestamp, usize, usize)>>;

struct Crowd {
    agents: Vec<Agent>,
    agenda: Agenda,
    /// Events on the agenda, by their place there; ticks are not.
    events: Vec<Option<Event>>,
    /// When each agent's next tick is planned.
    ticks: Vec<Option<Timestamp>>,
    /// Requests in each second.
    requests: Vec<u32>,
}

const TICK: usize = usize::MAX;

impl Crowd {
    fn new() -> Self {
        let mut crowd = Self {
            agents: Vec::new(),
            agenda: Agenda::new(),
            events: Vec::new(),
            ticks: vec![None; AGENTS],
            requests: vec![0; usize::try_from(END).unwrap() + 1],
        };
        for n in 0..AGENTS {
            let limits = one_core().saturating_add(&one_core());
            let node = NodeId(*blake3::hash(&n.to_be_bytes()).as_bytes());
            let config = Config::new(node, limits, 2);
            crowd.agents.push(Agent::new(config, node.0));
            // All at once, as after a power cut: the worst for falling into step.
            let added = Event::StoreAdded {
                store: store(),
                incarnation: incarnation(1),
                classes: vec![IsolationClass::Process],
            };
            let offered = Event::Offered {
                offer: OfferId(1),
                store: store(),
                jobs: vec![job(n as u128)],
                need: need(),
                ahead: false,
            };
            crowd.later(Timestamp::ZERO, n, added);
            crowd.later(Timestamp(1), n, offered);
        }
        crowd
    }

    fn later(&mut self, at: Timestamp, agent: usize, event: Event) {
        self.events.push(Some(event));
        self.agenda
            .push(Reverse((at, agent, self.events.len() - 1)));
    }

    fn run(&mut self) {
        while let Some(Reverse((now, agent, place))) = self.agenda.pop() {
            if now.0 / 1_000_000 >= END {
                return;
            }
            let event = match place {
                TICK => Event::Tick,
                place => self.events[place].take().unwrap(),
            };
            for action in self.agents[agent].handle(now, event) {
                self.perform(now, agent, action);
            }
            if place == TICK {
                self.ticks[agent] = None;
            }
            self.plan_tick(now, agent);
        }
    }

    /// One tick at a time: an earlier one replaces a later one, which then does no harm.
    fn plan_tick(&mut self, now: Timestamp, agent: usize) {
        let Some(wake) = self.agents[agent].next_wake() else {
            return;
        };
        let at = wake.max(Timestamp(now.0 + 1));
        if self.ticks[agent].is_none_or(|planned| at < planned) {
            self.ticks[agent] = Some(at);
            self.agenda.push(Reverse((at, agent, TICK)));
        }
    }

    fn perform(&mut self, now: Timestamp, agent: usize, action: Action) {
        let second = now.0 / 1_000_000;
        let away = AWAY
            .contains(&second)
            .then_some(Trouble::Unavailable { after: None });
        let event = match action {
            Action::Claim { nonce, scope, .. } => {
                let jobs = match scope {
                    Scope::Jobs(jobs) => jobs,
                    Scope::Any => Vec::new(),
                };
                let grants = jobs.iter().map(|job| grant(job.0.as_u128(), spec(|_| ())));
                let claimed = Claimed {
                    grants: grants.collect(),
                    lease: LEASE,
                };
                Event::Claimed {
                    nonce,
                    store: store(),
                    reply: away.map_or(Ok(claimed), Err),
                }
            }
            Action::Renew { held, .. } => {
                let numbers = held.iter().map(|held| held.claim.job.0.as_u128());
                let renewed = Renewed {
                    held: held.iter().map(|held| held.claim.job).collect(),
                    state: state(&numbers.collect::<Vec<_>>()),
                    lease: LEASE,
                    ..Renewed::default()
                };
                Event::Renewed {
                    store: store(),
                    reply: away.map_or(Ok(renewed), Err),
                }
            }
            Action::Prepare { key, .. } => return self.later(now, agent, Event::Prepared { key }),
            Action::Start { key } => return self.later(now, agent, Event::Started { key }),
            _ => return,
        };
        self.requests[usize::try_from(second).unwrap()] += 1;
        self.later(now.after(ANSWER), agent, event);
    }

    fn most_in(&self, seconds: std::ops::Range<u64>) -> u32 {
        let range = usize::try_from(seconds.start).unwrap()..usize::try_from(seconds.end).unwrap();
        self.requests[range].iter().copied().max().unwrap()
    }
}

#[test]
fn a_store_that_goes_away_under_five_hundred_agents_meets_no_storm_then_or_after() {
    let mut crowd = Crowd::new();
    crowd.run();
    let held = crowd.agents.iter().map(|agent| agent.runs().count());
    assert_eq!(held.sum::<usize>(), AGENTS);
    let usual = crowd.most_in(20..AWAY.start);
    let first = crowd.most_in(AWAY.start..AWAY.start + LEASE.as_secs());
    let later = crowd.most_in(AWAY.start + LEASE.as_secs()..AWAY.end);
    let back = crowd.most_in(AWAY.end..AWAY.end + 1);
    let settled = crowd.most_in(AWAY.end + 20..END);
    println!(
        "requests per second: {usual} before, {first} at first, {later} later, {back} when it is back, {settled} settled"
    );
    // All were started at once, so their renewals, each 5 s, fall together until something disturbs them. A driver's client
    // tries each of these requests up to four times while it is refused.
    let agents = u32::try_from(AGENTS).unwrap();
    assert!(usual <= agents * 3 / 2, "{:?}", crowd.requests);
    assert!(first <= agents * 3, "{:?}", crowd.requests);
    assert!(later <= agents / 2, "{:?}", crowd.requests);
    assert!(back <= agents / 2, "{:?}", crowd.requests);
    assert!(settled <= agents, "{:?}", crowd.requests);
    // Every task goes on.
    let paused = crowd
        .agents
        .iter()
        .flat_map(Agent::runs)
        .filter(|run| run.paused);
    assert_eq!(paused.count(), 0);
}
