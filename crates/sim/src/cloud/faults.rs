//! What goes wrong, how, and how it ends.

use std::time::Duration;

use anyhow::Context as _;
use mutual_model::agent::Event;
use mutual_model::history::Deed;

use super::database::QUICK;
use super::plan::{Fault, Incident};
use super::wire::{Place, Weather};
use super::{CALM_WITHIN, World};

/// [`super::Happening::Recovery`] from this number on boots the machine of the rest.
pub(super) const BOOT: usize = 1 << 16;

/// A bad day on the Internet, for a lease of 1.6 s.
const STORM: Weather = Weather {
    delay_min: Duration::from_millis(5),
    delay_max: Duration::from_millis(120),
    loss: 0.1,
    repeated: 0.2,
};
/// A disk that is so slow that callers give up.
const SLOW: Duration = Duration::from_millis(1_800);

impl World {
    fn incident(&self, number: usize) -> Incident {
        self.plan.incidents[number]
    }

    pub(super) fn begin_incident(&mut self, number: usize) -> anyhow::Result<()> {
        let Incident { fault, lasts, .. } = self.incident(number);
        self.log
            .say(self.now, || format!("begins: {fault:?} for {lasts:?}"));
        let by = u32::try_from(number).context("too many incidents")?;
        match fault {
            Fault::Kill(agent) => self.kill_agent(agent, true),
            Fault::PowerCut(agent) => {
                self.kill_agent(agent, false);
                self.machines[agent].has_power = false;
            }
            Fault::Sleep(agent) => self.put_to_sleep(agent),
            Fault::Shutdown(agent) if self.sleeps(agent) => {}
            Fault::Shutdown(agent) => self.tell(agent, Event::Shutdown),
            Fault::Sever(agent) => self.sever(agent),
            Fault::Cut(agent) => {
                self.cut(by, agent, true);
                self.cut(by, agent, false);
            }
            Fault::Mute(agent) => self.cut(by, agent, true),
            Fault::Deafen(agent) => self.cut(by, agent, false),
            Fault::AgentClock(agent, by_ms) => self.machines[agent].skew_ms += by_ms,
            Fault::Slander(agent) => self.slander(agent),
            Fault::KillServer(server) => self.kill_server(server),
            Fault::CutDatabase(server) => {
                self.net.cut(by, Place::Server(server), Place::Database);
                self.net.cut(by, Place::Database, Place::Server(server));
            }
            Fault::KillDatabase => self.kill_database(),
            Fault::SlowDisk => self.database.disk = SLOW,
            Fault::StoreClock(by_ms) => {
                self.database.step_clock(by_ms);
                self.log.note(self.now, self.now, Deed::ClockSet);
            }
            Fault::Epoch => {
                if self.database.is_up {
                    let who = self.principal(Place::Server(0));
                    self.database.begin_epoch(self.now, &who)?;
                    self.note_opening(true)?;
                }
            }
            Fault::Storm => self.net.weather = STORM,
        }
        self.later(lasts, super::Happening::Recovery(number));
        Ok(())
    }

    pub(super) fn end_incident(&mut self, number: usize) -> anyhow::Result<()> {
        if let Some(machine) = number.checked_sub(BOOT) {
            self.boot(machine);
            return Ok(());
        }
        let Incident { fault, .. } = self.incident(number);
        self.log.say(self.now, || format!("ends: {fault:?}"));
        match fault {
            Fault::Kill(agent) | Fault::PowerCut(agent) => self.boot(agent),
            Fault::Shutdown(agent) => {
                self.kill_agent(agent, true);
                self.boot(agent);
            }
            Fault::Sleep(agent) => self.wake_up(agent),
            Fault::KillServer(server) if !self.servers[server].is_up => self.start_server(server),
            Fault::KillDatabase => self.start_database()?,
            Fault::SlowDisk => self.database.disk = QUICK,
            Fault::Storm => self.net.weather = Weather::FAIR,
            _ => self
                .net
                .heal(u32::try_from(number).context("too many incidents")?),
        }
        Ok(())
    }

    fn start_database(&mut self) -> anyhow::Result<()> {
        if self.database.is_up {
            return Ok(());
        }
        self.database.restart(self.now);
        self.note_opening(true)
    }

    fn cut(&mut self, by: u32, agent: usize, outbound: bool) {
        for server in 0..self.servers.len() {
            let (agent, server) = (Place::Agent(agent), Place::Server(server));
            let (from, to) = if outbound {
                (agent, server)
            } else {
                (server, agent)
            };
            self.net.cut(by, from, to);
        }
    }

    fn sever(&mut self, agent: usize) {
        let life = self.machines[agent].life.as_ref();
        if let Some(incarnation) = life.map(|life| life.incarnation) {
            self.close_sessions(agent, incarnation);
        }
    }

    fn put_to_sleep(&mut self, agent: usize) {
        let machine = &self.machines[agent];
        if machine.life.is_none() || machine.asleep.is_some() {
            return;
        }
        self.fall_asleep(agent);
        self.machines[agent].asleep = Some(self.now);
    }

    /// All faults end, and everybody lives.
    pub(super) fn calm_down(&mut self) -> anyhow::Result<()> {
        self.log.say(self.now, || "calm".to_owned());
        self.is_calm = true;
        self.net.heal_all();
        self.database.disk = QUICK;
        self.start_database()?;
        for server in 0..self.servers.len() {
            if !self.servers[server].is_up {
                self.start_server(server);
            }
        }
        for agent in 0..self.machines.len() {
            self.wake_up(agent);
            self.boot(agent);
        }
        let within_ms = u64::try_from(CALM_WITHIN.as_millis())?;
        self.log.note(self.now, self.now, Deed::Calm { within_ms });
        Ok(())
    }
}
