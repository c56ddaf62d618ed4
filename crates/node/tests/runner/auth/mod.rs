//! Credentials: what is accepted, and above all what is not.

mod documents;
pub(crate) mod fixture;
mod nodes;
mod tokens;
