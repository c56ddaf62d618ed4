//! `mutual stage check`: whether a schedule keeps the rules.

use std::path::PathBuf;

use mutual_stage::{Model, Violation, validate};
use serde_json::json;

use super::answer::{Given, Planned, Weight};
use super::file::{self, Named, Problem};
use super::solve::model;
use crate::args::Session;
use crate::failure::{Failure, Outcome};

/// Check a schedule against its instance; exit code 1 if it breaks a rule
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance, JSON
    file: PathBuf,
    /// What `mutual stage solve --json` answered, or its list of `{"id", "start"}`
    schedule: PathBuf,
    /// What a load under way occupies [default: what the schedule's file says]
    #[arg(long, value_name = "MODEL", value_parser = model)]
    model: Option<Model>,
}

/// What broke no rule exits with this.
const HOLDS: u8 = 0;
const DOES_NOT: u8 = 1;

pub(crate) fn run(session: &Session, args: &Args) -> Outcome<u8> {
    let named = Named::read(&args.file)?;
    let about = |failure: Failure| failure.about(args.schedule.display());
    let given = Given::parse(&file::read(&args.schedule)?);
    let given = given.map_err(|error| about(Failure::user(error)))?;
    let entries = given.schedule;
    let no_model = || {
        Failure::user("the schedule does not say its model")
            .hint("say --model continuous or integral")
    };
    let model = args.model.or(given.model).ok_or_else(no_model)?;
    let planned = named.planned(&entries).map_err(about)?;
    let (weight, violation) = judge(&named, model, &planned);
    let document = json!({
        "model": model, "feasible": violation.is_none(), "violation": violation,
        "served": entries.len(), "weight": Weight(weight),
    });
    session.output.answer(&document, || match &violation {
        Some(why) => format!("not feasible: {why}"),
        None => format!("feasible: {} jobs served, weight {weight}", entries.len()),
    });
    Ok(match violation {
        Some(_) => DOES_NOT,
        None => HOLDS,
    })
}

fn judge(named: &Named, model: Model, planned: &Planned) -> (u128, Option<String>) {
    match (&named.problem, planned) {
        (Problem::Plain(instance), Planned::Plain(schedule)) => {
            let violation = validate(instance, model, schedule).err();
            (
                schedule.weight(instance),
                violation.map(|why| words(named, why)),
            )
        }
        (Problem::Shared(shared), Planned::Shared(schedule)) => {
            let violation = shared.validate(model, schedule).err();
            let served = schedule.served.iter();
            let weight = served
                .map(|job| u128::from(shared.tasks()[*job].weight))
                .sum();
            (weight, violation.map(|why| why.to_string()))
        }
        _ => (0, Some("the schedule is of another kind".to_owned())),
    }
}

/// The violation with the job's own name.
fn words(named: &Named, violation: Violation) -> String {
    let name = |reservation: usize| &named.jobs[reservation];
    match violation {
        Violation::Unknown { .. } | Violation::Overflow { .. } => violation.to_string(),
        Violation::Repeated { reservation } => {
            format!("job {} is loaded more than once", name(reservation))
        }
        Violation::Late { reservation, end } => {
            format!(
                "the load of job {} ends at {end}, after its due date",
                name(reservation)
            )
        }
        Violation::Overlap { reservation, start } => format!(
            "the load of job {} starts at {start}, before the one before it has ended",
            name(reservation)
        ),
    }
}
