//! Clusters of real processes, which have the machine to themselves.

mod checkpoint;
mod cloud;
mod experiment;
mod fencing;
mod guardians;
mod lab;
mod outages;
mod refusals;
mod steps;
