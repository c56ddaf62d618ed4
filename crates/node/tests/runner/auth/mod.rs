//! Credentials: what is accepted, and above all what is not.

mod documents;
mod fixture;
mod nodes;
mod tokens;
