//! Signed records: what nodes tell each other through the network, and when to believe it.
//!
//! A record says something about a node, a job or an index ([`Body`]). Its publisher signs it
//! together with its namespace, incarnation, sequence number and lifetime ([`SignedRecord`]). The
//! place where it is kept follows from its content ([`SignedRecord::key`]), so nobody can store a
//! record where it does not belong. Whoever receives one, to keep it or to act on it, checks the
//! same things in the same way ([`SignedRecord::check`]): the publisher is a member of the
//! namespace by a certificate of a trusted organisation, the signature is the publisher's, and the
//! record is not older than its lifetime allows.
//!
//! Lifetimes count down on each holder's own monotonic clock from the moment of receipt, and what
//! remains is forwarded. The signed time only bounds replay, within five minutes either way, so
//! that a laptop with a wrong clock still takes part (DESIGN §3).

mod body;
pub(crate) mod codec;
mod signed;
mod trust;

pub use body::{
    Ad, BULLETIN_JOBS_MAX, Body, Bulletin, DirectoryEntry, IdleEntry, Index, Kind, NodeRecord,
    ProviderRecord, StatusMirror, Topic, directory_key, idle_key, mirror_key, node_key,
    provider_key, roster_key, topic_key,
};
pub use codec::CodecError;
pub use signed::{
    CLOCK_TOLERANCE, RECORD_LEN_MAX, Record, RecordError, SignedRecord, Stamp, VerifiedRecord,
    Version,
};
pub use trust::Trust;
