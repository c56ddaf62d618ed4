//! The algorithms by name.

use std::num::NonZeroUsize;

use mutual_stage::continuous::{self, Epsilon};
use mutual_stage::integral::{self, Half};
use mutual_stage::{Instance, Model, Schedule, Solution, Unsupported, baseline, solve};

use crate::failure::{Failure, Outcome};

/// Ways of the beam when it is asked for by name.
const BEAM_WIDTH: NonZeroUsize = NonZeroUsize::new(200).expect("200 is not 0");

/// An algorithm. Those that belong to one model refuse the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Algorithm {
    /// The best that the budget allows, whatever the instance
    Best,
    /// Continuous: exact, on the Pareto front
    Pareto,
    /// Continuous: exact, by the paper's table
    Table,
    /// Continuous: at least 1 - epsilon of the best
    Fptas,
    /// Continuous: exact for equal weights, O(n log n)
    Most,
    /// Integral: best of all halves, refilled
    Approximate,
    /// Integral: the paper's 2-approximation for equal weights
    HalfLeft,
    /// Integral: the same from the right, for any weights
    HalfRight,
    /// Integral: heaviest set without conflicts of a continuous optimum
    Forest,
    /// Integral: the paper's weighted 2 (1 + epsilon)
    Weighted,
    /// Integral: images of at most a seventh of the stage
    Small,
    /// Integral: exact if every image is above half the stage
    Large,
    /// Integral: the same by the paper's forward program
    LargeForward,
    /// Integral: exact if all sizes are equal
    EqualSizes,
    /// Integral: a beam in due-date order
    Beam,
    /// Baseline: latest due date first, right-tight
    BackwardEdd,
    /// Baseline: earliest due date first, looking ahead
    ForwardEdd,
    /// Baseline: earliest due date first, loading late images in vain
    BlindEdd,
}

impl Algorithm {
    pub(crate) fn name(self) -> String {
        use clap::ValueEnum as _;
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn model(self) -> Option<Model> {
        match self {
            Self::Pareto | Self::Table | Self::Fptas | Self::Most => Some(Model::Continuous),
            Self::Best | Self::BackwardEdd | Self::ForwardEdd | Self::BlindEdd => None,
            _ => Some(Model::Integral),
        }
    }

    /// Runs it; a baseline answers without a bound.
    pub(crate) fn run(
        self,
        instance: &Instance,
        model: Model,
        epsilon: Epsilon,
        stop: &mut dyn FnMut() -> bool,
    ) -> Outcome<(Schedule, Option<u128>)> {
        if self.model().is_some_and(|own| own != model) {
            let text = format!("--algorithm {} does not know that model", self.name());
            return Err(Failure::user(text).hint("`mutual stage solve --help` lists them"));
        }
        let baseline = match self {
            Self::BackwardEdd => Some(baseline::backward_edd(instance, model)),
            Self::ForwardEdd => Some(baseline::forward_edd(instance, model)),
            Self::BlindEdd => Some(baseline::blind_edd(instance, model)),
            _ => None,
        };
        if let Some(schedule) = baseline {
            return schedule
                .map(|schedule| (schedule, None))
                .map_err(unsupported);
        }
        let solution = self.solution(instance, model, epsilon, stop);
        let solution = solution.map_err(unsupported)?;
        Ok((solution.schedule, Some(solution.bound)))
    }

    fn solution(
        self,
        instance: &Instance,
        model: Model,
        epsilon: Epsilon,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Solution, Unsupported> {
        match self {
            Self::Pareto => continuous::heaviest(instance),
            Self::Table => continuous::heaviest_by_table(instance),
            Self::Fptas => continuous::near_heaviest(instance, epsilon),
            Self::Most => continuous::most(instance),
            Self::Approximate => integral::approximate(instance),
            Self::HalfLeft => integral::half(instance, Half::FromLeft),
            Self::HalfRight => integral::half(instance, Half::FromRight),
            Self::Forest => integral::half(instance, Half::Forest),
            Self::Weighted => integral::half_of_near_heaviest(instance, epsilon),
            Self::Small => integral::small_images(instance),
            Self::Large => integral::large_images(instance),
            Self::LargeForward => integral::large_images_forward(instance),
            Self::EqualSizes => integral::equal_sizes(instance),
            Self::Beam => integral::beam(instance, BEAM_WIDTH),
            Self::Best | Self::BackwardEdd | Self::ForwardEdd | Self::BlindEdd => {
                Ok(solve(instance, model, stop))
            }
        }
    }
}

fn unsupported(error: Unsupported) -> Failure {
    Failure::user(format!("instance: {error}")).hint("--algorithm best takes every instance")
}

/// The part of the greatest weight that may be lost, as a decimal.
pub(crate) fn epsilon(text: &str) -> Result<Epsilon, String> {
    let part: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let millionths = (part * 1e6).round();
    if !(1.0..=1e6).contains(&millionths) {
        return Err("must be from 0.000001 to 1".to_owned());
    }
    Epsilon::millionths(millionths as u32).ok_or_else(|| "must be from 0.000001 to 1".to_owned())
}
