//! How much work there is for how many slots.

use std::time::Duration;

use mutual_node::config::LivenessProfile;
use serde::Serialize;

use super::field::Setting;

/// How much work there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// One slot for each agent, more tasks than slots
    Saturated,
    /// Two slots for each agent, half of them used
    Headroom,
}

impl Load {
    pub(crate) const ALL: [Self; 2] = [Self::Saturated, Self::Headroom];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::Headroom => "headroom",
        }
    }

    /// Agents with so many tasks in all.
    pub(crate) fn setting(self, agents: usize, tasks: usize, options: &Options) -> Setting {
        let (slots, in_flight) = match self {
            Self::Saturated => (1, tasks),
            Self::Headroom => (2, agents),
        };
        Setting {
            agents,
            slots,
            tasks,
            in_flight,
            duration: options.task,
            spread: LONGER,
            profile: options.profile.into(),
            seeder: false,
            postgres: None,
            link: None,
        }
    }
}

/// How much longer than asked for the longest task runs, so that not all end at once.
const LONGER: f64 = 0.4;

/// How eagerly silence is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    /// For one local network
    Fast,
    /// For any network, the default of a node
    Wide,
}

impl From<Profile> for LivenessProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Fast => Self::Fast,
            Profile::Wide => Self::Wide,
        }
    }
}

/// What the experiments with lost agents have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Only this setting
    #[arg(long, value_name = "NAME")]
    pub(crate) setting: Option<Load>,
    /// Repeats of each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repeat: u32,
    /// Tasks for each agent
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) tasks: u32,
    /// How long a task runs at least
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) task: Duration,
    /// How eagerly silence is noticed; on busy cores `fast` takes the living for dead
    #[arg(long, value_name = "PROFILE", default_value = "wide")]
    pub(crate) profile: Profile,
}

impl Options {
    /// The settings that are asked for.
    pub(crate) fn loads(&self) -> Vec<Load> {
        let asked = |load: &Load| self.setting.is_none_or(|only| only == *load);
        Load::ALL.into_iter().filter(asked).collect()
    }
}
