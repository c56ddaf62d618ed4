//! One module per command.

pub(crate) mod cancel;
pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod experiment;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod image;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod measure;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod org;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod spread;
pub(crate) mod stage;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod submit;
pub(crate) mod up;
