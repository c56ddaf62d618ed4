//! The program as its users meet it: real processes, real output.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "runner/errors.rs"]
mod errors;
#[path = "runner/heavy.rs"]
mod heavy;
#[path = "runner/help.rs"]
mod help;
#[path = "runner/job_file.rs"]
mod job_file;
#[path = "runner/org.rs"]
mod org;
#[path = "runner/program.rs"]
mod program;
#[path = "runner/stage.rs"]
mod stage;
#[path = "runner/stage_input.rs"]
mod stage_input;
